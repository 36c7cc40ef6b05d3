// The visitor's own painting: a style like the others, whose tile takes a picture.

import { resampled } from "./lanczos.js";
import { brought, drawn, opened, pixels, shown } from "./picture.js";

/** The painting's longer side, as in Python: strokes get the size that they have there. */
const SIDE = 512;
/** Larger ones are halved by the browser first. */
const LARGE = 2048;

/** The style, of what site.json tells of the files that it takes; it has no painting yet. */
export function ownStyle(files) {
  const model = { ...files.paint, own: files, styles: [] };
  const { grow_from, variation } = files.paint;
  return { title: "Your own painting", name: "painting", model, index: 0, own: true, grow_from, variation, painting: null, parameters: null };
}

/** Let the style's tile take what is dropped on it, or pasted while it has the focus. */
export function listenTo(style, take) {
  const { button } = style;
  button.classList.add("own", "vacant");
  for (const [name, words] of [["plus", "+"], ["hint", "drop or paste one"]]) {
    const part = document.createElement("span");
    Object.assign(part, { className: name, textContent: words, ariaHidden: String(name === "plus") });
    button.append(part);
  }
  const over = (event) => {
    event.preventDefault();
    event.stopPropagation();
    button.classList.toggle("over", event.type === "dragover");
  };
  for (const name of ["dragenter", "dragover", "dragleave"]) button.addEventListener(name, over);
  button.addEventListener("drop", (event) => {
    over(event);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (!file || document.activeElement !== button) return;
    event.preventDefault();
    take(file);
  }, true);
}

/** Make a file the style's painting. */
export async function takePainting(style, file) {
  const bitmap = await opened(file);
  const sides = brought(bitmap, SIDE);
  let { width, height } = bitmap;
  while (Math.max(width, height) > LARGE) [width, height] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const painting = medianOf(resampled(pixels(bitmap, width, height), ...sides));
  bitmap.close();
  Object.assign(style, { painting, parameters: null, name: (file.name || "painting").replace(/\.[^.]*$/, "") });
  drawn(style.canvas, shown(painting));
  style.button.classList.remove("vacant");
  style.button.querySelector(".hint").textContent = "choose another";
}

/** What the style has of its own, predicted once. */
export async function parametersOf(style, engine, say) {
  const loading = (share) => say("Loading what reads paintings …", share);
  const reading = (share) => say("Reading your painting …", share);
  if (!style.parameters) reading(0);
  const asked = (style.parameters ??= engine.predict(style.model, style.painting, loading, reading));
  try {
    return await asked;
  } catch (error) {
    if (style.parameters === asked) style.parameters = null;
    throw error;
  }
}

/** The 3×3 median of each channel, borders reflected: takes the grain of canvas and print away, as in Python. */
function medianOf({ rgb, width, height }) {
  const result = new Uint8Array(rgb.length);
  const around = new Uint8Array(9);
  const folded = (at, side) => (at < 0 ? 1 : at === side ? side - 2 : at);
  for (let row = 0; row < height; row++) {
    const rows = [row - 1, row, row + 1].map((each) => folded(each, height));
    for (let column = 0; column < width; column++) {
      const columns = [column - 1, column, column + 1].map((each) => folded(each, width));
      for (let channel = 0; channel < 3; channel++) {
        let count = 0;
        for (const y of rows) for (const x of columns) around[count++] = rgb[3 * (y * width + x) + channel];
        result[3 * (row * width + column) + channel] = around.sort()[4];
      }
    }
  }
  return { rgb: result, width, height };
}
