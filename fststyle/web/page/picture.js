// Pictures: files to pixels, sizes, and canvases. A picture is {rgb, width, height}, three bytes a pixel.

/** The most pixels that are painted at once; what the memory of a page allows for. */
export const MOST = 4.2e6;
const LEAST = 16;

/** A file as a bitmap, turned as its camera was held. */
export async function opened(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    const name = file.name ? `${file.name}: ` : "";
    throw new Error(`${name}is no picture that this browser can open; choose a JPEG, PNG or WebP file.`);
  }
  if (Math.min(bitmap.width, bitmap.height) < LEAST) {
    throw new Error(`The picture is ${bitmap.width}×${bitmap.height} pixels; expected at least ${LEAST} each way.`);
  }
  return bitmap;
}

/** Width and height with the longer side at `side`. */
export function brought({ width, height }, side) {
  const sides = [width, height].map((length) => Math.round((length * side) / Math.max(width, height)));
  if (Math.min(...sides) < LEAST) {
    throw new Error(`The painting is ${width}×${height} pixels, too narrow; expected at most ${side / LEAST} times as long as wide.`);
  }
  return sides;
}

/** Width and height with the longer side at most `side`, and at most `MOST` pixels. */
export function fitted(width, height, side = Infinity) {
  const scale = Math.min(1, side / Math.max(width, height), Math.sqrt(MOST / (width * height)));
  return [width, height].map((length) => Math.max(LEAST, Math.round(length * scale)));
}

export function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

/** The middle of a picture on a square canvas. */
export function drawn(canvas, source) {
  const side = Math.min(source.width, source.height);
  const [x, y] = [(source.width - side) / 2, (source.height - side) / 2];
  canvas.getContext("2d").drawImage(source, x, y, side, side, 0, 0, canvas.width, canvas.height);
}

/** A bitmap or canvas at a size, as pixels; what is transparent is white. Halved step by step, so that nothing aliases. */
export function pixels(source, width, height) {
  let from = source;
  let [w, h] = [source.width, source.height];
  while (w >= 2 * width && h >= 2 * height) {
    const half = canvasOf(Math.ceil(w / 2), Math.ceil(h / 2));
    painted(half, from);
    [from, w, h] = [half, half.width, half.height];
  }
  const canvas = canvasOf(width, height);
  const context = painted(canvas, from);
  return { rgb: withoutAlpha(context.getImageData(0, 0, width, height).data), width, height };
}

function painted(canvas, source) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context;
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** A picture on a canvas of its size. */
export function shown(picture, canvas = canvasOf(0, 0)) {
  const image = new ImageData(picture.width, picture.height);
  for (let from = 0, to = 0; from < picture.rgb.length; ) {
    image.data[to++] = picture.rgb[from++];
    image.data[to++] = picture.rgb[from++];
    image.data[to++] = picture.rgb[from++];
    image.data[to++] = 255;
  }
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A picture at another size. */
export function resized(picture, width, height) {
  if (picture.width === width && picture.height === height) return picture;
  return pixels(shown(picture), width, height);
}
