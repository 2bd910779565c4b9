/** Every text of the dashboard; there is one file per language. */

import { en } from "./text/en";

export type Texts = typeof en;

export const t: Texts = en;
