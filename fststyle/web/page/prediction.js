// A painting's style, as fststyle/inference/predictor.py predicts it.

import { COUNT, SIDE, colourStatistics, fitted } from "./palette.js";

/** A picture's bytes as the image that a graph takes, (1, 3, H, W) in [0, 1]; of several, one after the other. */
export function imageOf(rgb, count = rgb.length / 3) {
  const image = new Float32Array(rgb.length);
  for (let from = 0; from < rgb.length; from++) {
    const [pixel, channel] = [Math.floor(from / 3), from % 3];
    image[(3 * Math.floor(pixel / count) + channel) * count + (pixel % count)] = rgb[from] / 255;
  }
  return image;
}

/** The bytes of an image (1, 3, H, W). */
export function bytesOf(image) {
  const [count, rgb] = [image.length / 3, new Uint8ClampedArray(image.length)]; // which rounds
  for (let to = 0; to < rgb.length; to++) rgb[to] = 255 * image[(to % 3) * count + Math.floor(to / 3)];
  return new Uint8Array(rgb.buffer);
}

export class Predictor {
  /** The runtime, the session that predicts, and the bytes of the noise. */
  constructor(ort, session, noise) {
    [this.ort, this.session] = [ort, session];
    this.noise = new ort.Tensor("float32", imageOf(noise, SIDE * SIDE), [COUNT, 3, SIDE, SIDE]);
  }

  /** Parameters of a picture's style, its colours as they are predicted. */
  async predicted(rgb, width, height) {
    const { Tensor } = this.ort;
    const image = imageOf(rgb);
    const told = colourStatistics(planesOf(image));
    const feeds = { image: new Tensor("float32", image, [1, 3, height, width]), colours: new Tensor("float32", told, [1, told.length]) };
    return (await this.session.run(feeds)).parameters.getData();
  }

  /** Parameters of a picture's style, its colours fitted; `paint` is the session of the network that they are for. */
  async parameters(paint, rgb, width, height, progress) {
    const own = Float32Array.from([...(await this.predicted(rgb, width, height)), 0]); // the filter's share last: none for noise
    progress(0.4);
    const given = new this.ort.Tensor("float32", own, [1, own.length]);
    const made = await (await paint.run({ image: this.noise, parameters: given })).result.getData(true);
    progress(0.7);
    const values = made.map((value) => {
      const inside = Math.min(1 - 1e-6, Math.max(1e-6, value));
      return Math.log(inside / (1 - inside));
    });
    const { matrix, shift } = fitted(values, planesOf(imageOf(rgb)));
    const [at, weight, bias] = [own.length - 13, own.slice(-13, -4), own.slice(-4, -1)];
    for (let row = 0; row < 3; row++) {
      const product = (vector) => [0, 1, 2].reduce((sum, place) => sum + matrix[3 * row + place] * vector(place), 0);
      for (let column = 0; column < 3; column++) own[at + 3 * row + column] = product((place) => weight[3 * place + column]);
      own[at + 9 + row] = product((place) => bias[place]) + shift[row];
    }
    own[own.length - 1] = 1;
    return own;
  }
}

function planesOf(image) {
  const count = image.length / 3;
  return [0, 1, 2].map((channel) => image.subarray(channel * count, (channel + 1) * count));
}
