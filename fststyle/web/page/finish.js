// What is done with a result before it is shown, as fststyle/inference/options.py does it: strength, and colours.

const RADIUS = 8;
const MOST_GAIN = 1.5;
const TO_YCBCR = [0.299, 0.587, 0.114, -0.168736, -0.331264, 0.5, 0.5, -0.418688, -0.081312];
const FROM_YCBCR = inverse(TO_YCBCR);

/** The picture to show, of a photograph and the network's result, both {rgb, width, height} of one size. */
export function finished(photo, output, { strength, colours }) {
  let result = output;
  if (colours) result = { ...output, rgb: withLuminanceOf(photo.rgb, output.rgb) };
  return strength < 1 ? { ...output, rgb: blended(photo, result, strength) } : result;
}

/** The photograph's colours under another picture's luminance. */
function withLuminanceOf(photo, luminance) {
  const result = new Uint8ClampedArray(photo.length);
  const [yr, yg, yb, br, bg, bb, rr, rg, rb] = TO_YCBCR;
  const m = FROM_YCBCR;
  for (let at = 0; at < photo.length; at += 3) {
    const [r, g, b] = [photo[at], photo[at + 1], photo[at + 2]];
    const y = yr * luminance[at] + yg * luminance[at + 1] + yb * luminance[at + 2];
    const cb = br * r + bg * g + bb * b;
    const cr = rr * r + rg * g + rb * b;
    result[at] = m[0] * y + m[1] * cb + m[2] * cr;
    result[at + 1] = m[3] * y + m[4] * cb + m[5] * cr;
    result[at + 2] = m[6] * y + m[7] * cb + m[8] * cr;
  }
  return result;
}

/** Coarse parts are faded; fine parts too, then raised to the contrast between that of both. */
function blended(photo, output, strength) {
  if (strength === 0) return photo.rgb;
  const { width, height } = photo;
  const rest = 1 - strength;
  const channels = [0, 1, 2].map((channel) => [plane(photo.rgb, channel), plane(output.rgb, channel)]);
  const coarse = channels.map((pair) => pair.map((values) => surroundings(values, width, height)));
  const count = width * height;
  const [own, others, both] = [new Float32Array(count), new Float32Array(count), new Float32Array(count)];
  channels.forEach(([a, b], channel) => {
    for (let at = 0; at < count; at++) {
      const [fine, other] = [a[at] - coarse[channel][0][at], b[at] - coarse[channel][1][at]];
      own[at] += (fine * fine) / 3;
      others[at] += (other * other) / 3;
      both[at] += (fine * other) / 3;
    }
  });
  const [power, otherPower, product] = [own, others, both].map((values) => surroundings(values, width, height));
  const result = new Uint8ClampedArray(3 * count);
  for (let at = 0; at < count; at++) {
    const [p, q] = [Math.max(0, power[at]), Math.max(0, otherPower[at])];
    const wanted = rest * Math.sqrt(p) + strength * Math.sqrt(q);
    const faded = rest * rest * p + strength * strength * q + 2 * rest * strength * product[at];
    const gain = Math.min(MOST_GAIN, Math.max(1, (wanted + 1) / (Math.sqrt(Math.max(0, faded)) + 1)));
    channels.forEach(([a, b], channel) => {
      const [low, otherLow] = [coarse[channel][0][at], coarse[channel][1][at]];
      const fine = rest * (a[at] - low) + strength * (b[at] - otherLow);
      result[3 * at + channel] = fine * gain + rest * low + strength * otherLow;
    });
  }
  return result;
}

function plane(rgb, channel) {
  const values = new Float32Array(rgb.length / 3);
  for (let at = 0; at < values.length; at++) values[at] = rgb[3 * at + channel];
  return values;
}

/** The mean over (2 · radius + 1)² pixels, borders repeated. */
export function surroundings(values, width, height, radius = RADIUS) {
  return averaged(averaged(values, height, width, width, 1, radius), width, height, 1, width, radius);
}

/** Along one axis: `length` values `step` apart, for each of `lines` that are `next` apart. */
function averaged(values, length, lines, step, next, radius) {
  const result = new values.constructor(values.length);
  const window = 2 * radius + 1;
  for (let line = 0; line < lines; line++) {
    const start = line * next;
    const at = (place) => values[start + Math.min(length - 1, Math.max(0, place)) * step];
    let sum = 0;
    for (let place = -radius; place <= radius; place++) sum += at(place);
    for (let place = 0; place < length; place++) {
      result[start + place * step] = sum / window;
      sum += at(place + radius + 1) - at(place - radius);
    }
  }
  return result;
}

function inverse([a, b, c, d, e, f, g, h, i]) {
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const adjugate = [e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f];
  return [...adjugate, d * h - e * g, b * g - a * h, a * e - b * d].map((value) => value / determinant);
}
