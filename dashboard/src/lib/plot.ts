/** The one place that knows uPlot. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { colorOf } from "./colors";

interface Look {
  lines: readonly { label: string; dashed?: boolean }[];
  format: (value: number | null | undefined) => string;
  most: number | undefined;
  points: boolean;
  /** Sizes in bytes: the scale goes by powers of two. */
  isBinary: boolean;
  /** Charts with the same name here are pointed at together. */
  group: string;
  /** Called with the place of the moment that is pointed at, or with nothing. */
  onpoint: (index: number | undefined) => void;
}

const HEIGHT = 150;
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

export function plot(host: HTMLElement, look: Look, data: uPlot.AlignedData): uPlot {
  const color = (token: string): string => colorOf(host, token);
  const axis: uPlot.Axis = {
    stroke: () => color("--muted"),
    grid: { stroke: () => color("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const options: uPlot.Options = {
    width: Math.max(host.clientWidth, 100),
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false }, sync: { key: look.group } },
    hooks: { setCursor: [(chart) => look.onpoint(chart.cursor.idx ?? undefined)] },
    scales: {
      y: { range: (_chart, _least, most) => [0, look.most ?? Math.max(1, most * 1.1)] },
    },
    axes: [
      { ...axis, space: 80, size: 26, values: (_chart, at) => at.map(clock) },
      {
        ...axis,
        size: 58,
        ...(look.isBinary ? { incrs: POWERS } : {}),
        values: (_chart, at) => at.map((value) => look.format(value)),
      },
    ],
    series: [
      {},
      ...look.lines.map((line, index) => ({
        label: line.label,
        stroke: () => color(`--series-${index + 1}`),
        width: look.points ? 0 : 1.5,
        ...(line.dashed ? { dash: [5, 3] } : {}),
        points: { show: look.points, size: 5, fill: () => color(`--series-${index + 1}`) },
        spanGaps: false,
      })),
    ],
  };
  return new uPlot(options, data, host);
}

function clock(seconds: number): string {
  const at = new Date(seconds * 1000);
  const isWhole = seconds % 60 === 0;
  const precision: Intl.DateTimeFormatOptions = isWhole ? {} : { second: "2-digit" };
  return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...precision });
}
