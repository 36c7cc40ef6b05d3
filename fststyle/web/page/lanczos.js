// Pictures at another size as Pillow has them: what a style is predicted from depends on how sharp a painting is.

const REACH = 3;

/** A picture {rgb, width, height} at another size. */
export function resampled({ rgb, width, height }, toWidth, toHeight) {
  const turned = width === toWidth ? transposed(rgb, width, height) : along(rgb, width, height, toWidth);
  const back = height === toHeight ? transposed(turned, height, toWidth) : along(turned, height, toWidth, toHeight);
  return { rgb: new Uint8Array(back.buffer), width: toWidth, height: toHeight };
}

/** Rows at another length, as columns. */
function along(rgb, width, height, to) {
  const result = new Uint8ClampedArray(3 * to * height); // which rounds
  const scale = width / to;
  const wide = Math.max(1, scale);
  for (let at = 0; at < to; at++) {
    const centre = (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - REACH * wide + 0.5));
    const end = Math.min(width, Math.trunc(centre + REACH * wide + 0.5));
    const raw = Array.from({ length: end - first }, (_, place) => kernel((first + place - centre + 0.5) / wide));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    const weights = Float64Array.from(raw, (weight) => weight / total);
    for (let row = 0; row < height; row++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        let from = 3 * (row * width + first) + channel;
        for (let place = 0; place < weights.length; place++, from += 3) sum += weights[place] * rgb[from];
        result[3 * (at * height + row) + channel] = sum;
      }
    }
  }
  return result;
}

function transposed(rgb, width, height) {
  const result = new Uint8ClampedArray(rgb.length);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const [from, to] = [3 * (row * width + column), 3 * (column * height + row)];
      for (let channel = 0; channel < 3; channel++) result[to + channel] = rgb[from + channel];
    }
  }
  return result;
}

function kernel(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= REACH) return 0;
  const [a, b] = [Math.PI * x, (Math.PI * x) / REACH];
  return (Math.sin(a) * Math.sin(b)) / (a * b);
}
