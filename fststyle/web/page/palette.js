// A painting's colours, as fststyle/inference/prediction.py and fststyle/palette.py have them, whose numbers these are.

export const [SIDE, COUNT] = [128, 3];
const [BORDER, PIXELS, PARTS, MOST, LEVELS] = [8, 1536, 32, 16384, 16];
const REST = 3e-4;
const SHARE = PIXELS / PARTS;
const MIXED = [
  [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1],
  [1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1],
];

/** What the prediction is told of colours: three planes of values in [0, 1]; 57 numbers. */
export function colourStatistics(planes) {
  const levels = planes.flatMap((plane) => sortedMeans(plane, LEVELS).map((value) => 4 * value - 2));
  return Float32Array.from([...levels, ...covariance(planes, 0).map((value) => 40 * value)]);
}

/** Values in order, as means of `parts` equal shares. */
function sortedMeans(values, parts) {
  const ordered = Float32Array.from(values).sort();
  return Array.from({ length: parts }, (_, part) => {
    const [start, end] = [part, part + 1].map((bound) => Math.floor((bound * ordered.length) / parts));
    let sum = 0;
    for (let at = start; at < end; at++) sum += ordered[at];
    return sum / (end - start);
  });
}

/** Of three planes of N values, as 9 numbers; divided by N − `less`. */
function covariance(planes, less) {
  const count = planes[0].length;
  const means = planes.map((plane) => plane.reduce((sum, value) => sum + value, 0) / count);
  return [0, 1, 2].flatMap((row) =>
    [0, 1, 2].map((column) => {
      let sum = 0;
      for (let at = 0; at < count; at++) sum += (planes[row][at] - means[row]) * (planes[column][at] - means[column]);
      return sum / (count - less);
    }),
  );
}

/**
 * The affine map that gives a network's colours a painting's distribution.
 *
 * `made`: values before the sigmoid that the network makes of the noise, (COUNT, 3, SIDE, SIDE); `planes`: the
 * painting's colours in [0, 1]. Gives {matrix, shift}, 9 and 3 numbers, for values before the sigmoid.
 */
export function fitted(made, planes, steps = 200) {
  const given = [...inner(made), new Float64Array(PIXELS).fill(1)];
  const every = Math.ceil(planes[0].length / MOST);
  const some = planes.map((plane) => plane.filter((_, at) => at % every === 0));
  const axes = axesOf(some);
  const wanted = axes.map((axis) => sortedMeans(some[0].map((_, at) => along(axis, some, at)), PARTS));
  const [colours, back] = [0, 1].map(() => [0, 1, 2].map(() => new Float64Array(PIXELS)));
  const [values, order] = [new Float64Array(PIXELS), new Float64Array(PIXELS)];
  const rest = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]; // of each row a matrix's three numbers, and the shift
  const [now, moment, square] = [[...rest], rest.map(() => 0), rest.map(() => 0)];
  for (let step = 0; step < steps; step++) {
    for (let row = 0; row < 3; row++) {
      const [a, b, c, d] = now.slice(4 * row, 4 * row + 4);
      for (let at = 0; at < PIXELS; at++) {
        colours[row][at] = 1 / (1 + Math.exp(-(a * given[0][at] + b * given[1][at] + c * given[2][at] + d)));
      }
      back[row].fill(0);
    }
    axes.forEach((axis, number) => {
      for (let at = 0; at < PIXELS; at++) {
        values[at] = along(axis, colours, at);
        order[at] = Math.floor((values[at] + 256) * 2 ** 32) * 2048 + at; // sorted as numbers, it tells which is where
      }
      order.sort();
      for (let part = 0; part < PARTS; part++) {
        const members = order.subarray(part * SHARE, (part + 1) * SHARE).map((key) => key % 2048);
        const mean = members.reduce((sum, at) => sum + values[at], 0) / SHARE;
        const slope = Math.sign(mean - wanted[number][part]) / (axes.length * PIXELS);
        for (const at of members) for (let row = 0; row < 3; row++) back[row][at] += axis[row] * slope;
      }
    });
    const rate = (0.08 * (1 - step / steps)) / (1 - 0.9 ** (step + 1));
    for (let place = 0; place < 12; place++) {
      const [row, column] = [Math.floor(place / 4), place % 4];
      let gradient = column < 3 ? 2 * REST * (now[place] - rest[place]) : 0;
      for (let at = 0; at < PIXELS; at++) {
        gradient += back[row][at] * colours[row][at] * (1 - colours[row][at]) * given[column][at];
      }
      moment[place] = 0.9 * moment[place] + 0.1 * gradient;
      square[place] = 0.999 * square[place] + 0.001 * gradient ** 2;
      now[place] -= (rate * moment[place]) / (Math.sqrt(square[place] / (1 - 0.999 ** (step + 1))) + 1e-8);
    }
  }
  return { matrix: now.filter((_, place) => place % 4 < 3), shift: now.filter((_, place) => place % 4 === 3) };
}

/** Of each colour the values that count, PIXELS of them. */
function inner(made) {
  const side = SIDE - 2 * BORDER;
  const every = Math.floor((COUNT * side * side) / PIXELS);
  return [0, 1, 2].map((channel) =>
    Float64Array.from({ length: PIXELS }, (_, number) => {
      const [at, rest] = [Math.floor((number * every) / side ** 2), (number * every) % side ** 2];
      const [y, x] = [Math.floor(rest / side) + BORDER, (rest % side) + BORDER];
      return made[((3 * at + channel) * SIDE + y) * SIDE + x];
    }),
  );
}

const along = (axis, planes, at) => axis[0] * planes[0][at] + axis[1] * planes[1][at] + axis[2] * planes[2][at];

/** Directions in which colours are compared: principal axes in units of the spread along them, and mixtures. */
function axesOf(planes) {
  const { values, vectors } = eigen(covariance(planes, 1));
  const scales = values.map((value) => 1 / (Math.sqrt(Math.max(value, 0)) + 0.02));
  return MIXED.map((weights) => {
    const length = Math.hypot(...weights);
    return [0, 1, 2].map((row) =>
      [0, 1, 2].reduce((sum, column) => sum + (weights[column] / length) * scales[column] * vectors[3 * row + column], 0),
    );
  });
}

/** Of a symmetric matrix, 9 numbers: `values`, and `vectors` as columns; by Jacobi's rotations. */
function eigen(matrix) {
  const [a, vectors] = [[...matrix], [1, 0, 0, 0, 1, 0, 0, 0, 1]];
  for (let turn = 0; turn < 60; turn++) {
    const [p, q] = [[0, 1], [0, 2], [1, 2]][turn % 3];
    if (a[3 * p + q] === 0) continue;
    const angle = 0.5 * Math.atan2(2 * a[3 * p + q], a[4 * q] - a[4 * p]);
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    for (const each of [a, vectors]) {
      for (let row = 0; row < 3; row++) {
        const [one, other] = [each[3 * row + p], each[3 * row + q]];
        [each[3 * row + p], each[3 * row + q]] = [c * one - s * other, s * one + c * other];
      }
    }
    for (let column = 0; column < 3; column++) {
      const [one, other] = [a[3 * p + column], a[3 * q + column]];
      [a[3 * p + column], a[3 * q + column]] = [c * one - s * other, s * one + c * other];
    }
  }
  return { values: [a[0], a[4], a[8]], vectors };
}
