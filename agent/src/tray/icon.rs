//! The icon: one shape and one colour for each condition, drawn here, at any size.
//!
//! The shapes differ enough to be told apart without the colours, and the colours stand out from
//! light and from dark panels.

use super::condition::Condition;

/// What the icon shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// A filled disc: requests are welcome.
    Ready,
    /// A disc in a ring: requests run.
    Busy,
    /// Two bars: the owner, or the coordinator's operator, has paused it.
    Paused,
    /// A triangle with an exclamation mark: something here needs somebody.
    Attention,
    /// A cross: the coordinator does not answer.
    Disconnected,
    /// A ring of dashes: on the way, or about to stop.
    Waiting,
}

/// A square picture: alpha, red, green, blue for each pixel, row after row; colours are not
/// multiplied by alpha.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row, and rows.
    pub size: u16,
    /// Four bytes a pixel.
    pub argb: Vec<u8>,
}

/// Points in a row of each pixel at which the shape is looked up.
const SAMPLES: u16 = 4;

impl Icon {
    /// Returns the icon for a condition.
    pub fn of(condition: &Condition) -> Self {
        match condition {
            Condition::Starting | Condition::Registering | Condition::Stopping { .. } => {
                Self::Waiting
            }
            Condition::Ready => Self::Ready,
            Condition::Busy { .. } => Self::Busy,
            Condition::Paused { .. } | Condition::Drained { .. } => Self::Paused,
            Condition::Unconfigured | Condition::RuntimeNotAnswering | Condition::Unroutable(_) => {
                Self::Attention
            }
            Condition::Disconnected => Self::Disconnected,
        }
    }

    /// Draws the icon with `size` pixels in a row.
    pub fn draw(self, size: u16) -> Pixels {
        let color = self.color();
        let points = 0..size;
        let rows = points
            .clone()
            .flat_map(|y| points.clone().map(move |x| (x, y)));
        let argb = rows.flat_map(|(x, y)| {
            let [red, green, blue] = color;
            [self.coverage(x, y, size), red, green, blue]
        });
        Pixels {
            size,
            argb: argb.collect(),
        }
    }

    /// Returns red, green and blue.
    fn color(self) -> [u8; 3] {
        match self {
            Self::Ready => [0x1f, 0x9d, 0x4d],
            Self::Busy => [0x2b, 0x7d, 0xe9],
            Self::Paused | Self::Waiting => [0x86, 0x86, 0x8b],
            Self::Attention => [0xc8, 0x7a, 0x00],
            Self::Disconnected => [0xdc, 0x3c, 0x3c],
        }
    }

    /// Returns how much of the pixel the shape covers, 0 to 255.
    fn coverage(self, x: u16, y: u16, size: u16) -> u8 {
        let width = f32::from(size * SAMPLES);
        let at = |pixel: u16, sample: u16| {
            let middle = f32::from(pixel * SAMPLES + sample) + 0.5;
            middle / width * 2.0 - 1.0
        };
        let samples = (0..SAMPLES).flat_map(|row| (0..SAMPLES).map(move |column| (column, row)));
        let covered = samples.filter(|(column, row)| self.covers(at(x, *column), at(y, *row)));
        let covered = u16::try_from(covered.count()).unwrap_or(u16::MAX);
        u8::try_from(covered * 255 / (SAMPLES * SAMPLES)).unwrap_or(u8::MAX)
    }

    /// Returns whether the shape covers a point; both run from -1 to 1, right and down.
    fn covers(self, x: f32, y: f32) -> bool {
        let radius = x.hypot(y);
        match self {
            Self::Ready => radius <= 0.90,
            Self::Busy => radius <= 0.44 || (0.70..=0.94).contains(&radius),
            Self::Paused => (0.20..=0.66).contains(&x.abs()) && y.abs() <= 0.80,
            Self::Attention => {
                let in_triangle = y <= 0.82 && x.abs() <= (y + 0.98) * 0.56;
                let in_stroke = x.abs() <= 0.13 && (-0.40..=0.22).contains(&y);
                let in_dot = x.abs() <= 0.13 && (0.38..=0.62).contains(&y);
                in_triangle && !in_stroke && !in_dot
            }
            Self::Disconnected => {
                let (falling, rising) = ((x + y).abs(), (x - y).abs());
                falling.min(rising) <= 0.34 && falling.max(rising) <= 1.34
            }
            Self::Waiting => {
                let turn = y.atan2(x) / std::f32::consts::TAU + 1.0;
                (0.58..=0.92).contains(&radius) && (turn * 6.0).fract() <= 0.6
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ALL: [Icon; 6] = [
        Icon::Ready,
        Icon::Busy,
        Icon::Paused,
        Icon::Attention,
        Icon::Disconnected,
        Icon::Waiting,
    ];

    #[rstest]
    fn shapes_differ_without_their_colors(#[values(16, 22, 32)] size: u16) {
        for (index, one) in ALL.iter().enumerate() {
            for other in ALL.iter().skip(index + 1) {
                let differing = opacity(*one, size)
                    .zip(opacity(*other, size))
                    .filter(|(one, other)| one.abs_diff(*other) > 127)
                    .count();
                let pixels = usize::from(size) * usize::from(size);
                assert!(
                    differing * 8 >= pixels,
                    "{one:?} and {other:?}: {differing}"
                );
            }
        }
    }

    #[rstest]
    fn every_shape_stays_off_the_corners_and_is_seen(#[values(16, 22, 24, 32, 48, 64)] size: u16) {
        for icon in ALL {
            let opacity: Vec<_> = opacity(icon, size).collect();

            assert_eq!(opacity.len(), usize::from(size) * usize::from(size));
            assert_eq!(opacity.first(), Some(&0), "{icon:?}");
            let opaque = opacity.iter().filter(|alpha| **alpha > 127).count();
            assert!(opaque * 8 >= opacity.len(), "{icon:?}: {opaque}");
        }
    }

    /// Three to one is what WCAG asks of graphics.
    #[test]
    fn colors_stand_out_from_light_and_dark_panels() {
        let (white, dark) = ([0xff; 3], [0x2b; 3]);
        for icon in ALL {
            let color = icon.color();

            assert!(contrast(color, white) >= 3.0, "{icon:?} on white");
            assert!(contrast(color, dark) >= 3.0, "{icon:?} on dark");
        }
    }

    /// How it looks, for the one who changes it.
    #[test]
    fn shapes_at_the_smallest_size_are_the_ones_looked_at() {
        let drawn = ALL.map(|icon| format!("{icon:?}\n{}", in_letters(icon, 16)));

        insta::assert_snapshot!(drawn.join("\n"));
    }

    fn opacity(icon: Icon, size: u16) -> impl Iterator<Item = u8> {
        let mut bytes = icon.draw(size).argb.into_iter();
        std::iter::from_fn(move || {
            let alpha = bytes.next();
            bytes.by_ref().take(3).for_each(drop);
            alpha
        })
    }

    fn in_letters(icon: Icon, size: u16) -> String {
        let letter = |alpha| match alpha {
            0..=63 => '.',
            64..=191 => '+',
            192..=255 => '#',
        };
        let letters: Vec<_> = opacity(icon, size).map(letter).collect();
        let rows = letters.chunks(usize::from(size));
        rows.map(|row| row.iter().collect::<String>() + "\n")
            .collect()
    }

    fn contrast(one: [u8; 3], other: [u8; 3]) -> f32 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    fn luminance(color: [u8; 3]) -> f32 {
        let [red, green, blue] = color.map(|channel| {
            let channel = f32::from(channel) / 255.0;
            if channel <= 0.04 {
                channel / 12.92
            } else {
                ((channel + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}
