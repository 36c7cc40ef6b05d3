// Lightness that varies where a picture is even, as fststyle.inference.variation.

import { surroundings } from "./finish.js";

const HALO = 128;
const STEP = 2;
const EVEN = 0.04;
const [ALONG, BEND, SWIRL] = [50, 150, 16];
const ROOM = 1.5;
const [TABLE, DEVIATION] = [128, 0.5];

/** A picture {rgb, width, height} of which even areas vary by {amount, width}. */
export function varied({ rgb, width, height }, by) {
  if (!by?.amount) return { rgb, width, height };
  const [columns, lines] = [Math.ceil(width / STEP), Math.ceil(height / STEP)];
  const { even, light } = evenness(rgb, width, height, columns, lines);
  const noise = noises(columns, lines, by.width);
  const room = ROOM * by.amount;
  const added = even.map((share, at) => {
    const moved = Math.min(Math.max(light[at], room), 1 - room) - light[at];
    return 255 * share * (moved + by.amount * noise[at]);
  });
  const across = Array.from({ length: width }, (_, at) => between(at, columns));
  const result = new Uint8ClampedArray(rgb.length); // which rounds
  for (let row = 0; row < height; row++) {
    const [above, below, down] = between(row, lines);
    for (let column = 0; column < width; column++) {
      const [left, right, share] = across[column];
      const upper = added[above * columns + left] * (1 - share) + added[above * columns + right] * share;
      const lower = added[below * columns + left] * (1 - share) + added[below * columns + right] * share;
      const change = upper * (1 - down) + lower * down;
      for (let at = 3 * (row * width + column), end = at + 3; at < end; at++) result[at] = rgb[at] + change;
    }
  }
  return { rgb: new Uint8Array(result.buffer), width, height };
}

/** Of a pixel the values before and after it, and the share of the latter. */
function between(pixel, count) {
  const at = Math.min(Math.max((pixel + 0.5) / STEP - 0.5, 0), count - 1);
  const before = Math.floor(at);
  return [before, Math.min(before + 1, count - 1), at - before];
}

/** Of every block of STEP × STEP pixels how even it is, from 0 to 1, and its lightness. */
function evenness(rgb, width, height, columns, lines) {
  const [means, squares] = [new Float64Array(columns * lines), new Float64Array(columns * lines)];
  for (let row = 0; row < lines * STEP; row++) {
    for (let column = 0; column < columns * STEP; column++) {
      const at = 3 * (Math.min(row, height - 1) * width + Math.min(column, width - 1));
      const light = (0.299 * rgb[at] + 0.587 * rgb[at + 1] + 0.114 * rgb[at + 2]) / 255;
      const block = Math.floor(row / STEP) * columns + Math.floor(column / STEP);
      means[block] += light / STEP ** 2;
      squares[block] += light ** 2 / STEP ** 2;
    }
  }
  const smooth = (values) => surroundings(values, columns, lines, HALO / 8);
  const [mean, square] = [means, squares].map((values) => smooth(smooth(values)));
  const even = smooth(square.map((value, at) => Math.exp(-Math.max(value - mean[at] ** 2, 0) / EVEN ** 2)));
  return { even, light: means };
}

/** The noise at every STEP-th pixel. */
function noises(columns, lines, width) {
  const table = numbers();
  const swirl = SWIRL * width;
  const result = new Float64Array(columns * lines);
  for (let line = 0; line < lines; line++) {
    for (let column = 0; column < columns; column++) {
      const [x, y] = [(column + 0.5) * STEP, (line + 0.5) * STEP];
      const [u, v] = [x + BEND * smooth(table, 0, x / swirl, y / swirl), y + BEND * smooth(table, 1, x / swirl, y / swirl)];
      const coarse = smooth(table, 3, (0.8 * u + 0.6 * v) / (2 * ALONG), (0.8 * v - 0.6 * u) / (2 * width));
      result[line * columns + column] = (smooth(table, 2, u / ALONG, v / width) + 0.5 * coarse) / DEVIATION;
    }
  }
  return result;
}

/** Value noise with cells of 1 × 1. */
function smooth(table, number, x, y) {
  const [left, above] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [x - left, y - above].map((share) => share ** 3 * (share * (6 * share - 15) + 10));
  const value = (column, line) => table[(number * TABLE + (line & (TABLE - 1))) * TABLE + (column & (TABLE - 1))];
  const upper = value(left, above) * (1 - across) + value(left + 1, above) * across;
  const lower = value(left, above + 1) * (1 - across) + value(left + 1, above + 1) * across;
  return upper * (1 - down) + lower * down;
}

let known = null;

/** Numbers in [-1, 1] without order. */
function numbers() {
  if (known) return known;
  known = new Float32Array(4 * TABLE * TABLE);
  for (let at = 0; at < known.length; at++) {
    const [number, line, column] = [Math.floor(at / TABLE ** 2), Math.floor(at / TABLE) % TABLE, at % TABLE];
    let mixed = (Math.imul(number, 2654435761) + Math.imul(line, 668265263) + Math.imul(column, 374761393)) >>> 0;
    for (const [shift, factor] of [[15, 2246822519], [13, 3266489917]]) mixed = Math.imul(mixed ^ (mixed >>> shift), factor) >>> 0;
    mixed = (mixed ^ (mixed >>> 16)) >>> 0;
    known[at] = mixed / 2 ** 31 - 1;
  }
  return known;
}
