// The page: what the user does, and what is shown.

import { taken } from "./camera.js";
import { Engine } from "./engine.js";
import { finished } from "./finish.js";
import { listenTo, ownStyle, parametersOf, takePainting } from "./own.js";
import { MOST, canvasOf, drawn, fitted, opened, pixels, resized, shown } from "./picture.js";

const PREVIEW = 512;
const THUMBNAIL = 128;
const STROKES = [0.7, 1, 1.4, 2, 2.8];
const SIZES = [1024, 2048];

const $ = (id) => document.getElementById(id);
const state = { bitmap: null, name: "picture", style: null, photo: null, output: null, result: null, turn: 0 };
let engine;
let site;

// --- words --------------------------------------------------------------------------------------

function say(text, share = null) {
  $("status").textContent = text;
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
}

function complain(error) {
  const memory = /memory|allocat|OOM|abort/i.test(error?.message ?? "");
  $("error").textContent = memory ? "There is too little memory for this size; choose a smaller one." : error.message;
  $("error").hidden = false;
  say("");
}

/** A listener that says what goes wrong. */
function safely(work) {
  return async (...given) => {
    $("error").hidden = true;
    try {
      await work(...given);
    } catch (error) {
      complain(error);
    }
  };
}

// --- styles -------------------------------------------------------------------------------------

/** The weights of a style, and of the second one; null for a model of one style. */
function mixture(style, alone = false) {
  if (style.model.styles.length < 2) return null;
  const weights = new Float32Array(style.model.styles.length);
  const second = alone ? null : site.styles[$("second").value];
  const share = second ? $("share").value / 100 : 0;
  weights[style.index] += 1 - share;
  if (second) weights[second.index] += share;
  return weights;
}

function listStyles() {
  for (const style of site.styles) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "style", tabIndex: -1 });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", "false");
    style.canvas = canvasOf(THUMBNAIL, THUMBNAIL);
    style.button = button;
    button.append(style.canvas, style.title);
    button.onclick = safely(() => choose(style));
    $("styles").append(button);
    if (style.thumbnail) sample(style);
    if (style.own) own(style);
  }
  $("styles").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = site.styles.length;
    const at = site.styles.findIndex((style) => style.button === document.activeElement);
    const next = site.styles[(at + step + count) % count];
    reached(next);
    next.button.focus();
    if (!next.own || next.painting) next.button.click();
  };
}

/** The style that the tabulator key leads to. */
function reached(style) {
  for (const each of site.styles) each.button.tabIndex = each === style ? 0 : -1;
}

/** Let the tile of the visitor's own painting ask for one, until it has one, and where it is chosen already. */
function own(style) {
  const take = safely(async (file) => {
    await takePainting(style, file);
    await choose(style);
  });
  style.button.onclick = safely(() => (style.painting && style !== state.style ? choose(style) : $("painting").click()));
  $("painting").onchange = () => {
    const [file] = $("painting").files;
    $("painting").value = "";
    style.button.focus();
    if (file) return take(file);
  };
  listenTo(style, take);
}

/** What a style looks like, until there is a photograph. */
function sample(style) {
  const image = new Image();
  image.onload = () => !state.bitmap && drawn(style.canvas, image);
  image.src = style.thumbnail;
}

async function choose(style) {
  state.style = style;
  for (const each of site.styles) each.button.setAttribute("aria-checked", String(each === style));
  reached(style);
  const others = site.styles.filter((each) => each.model === style.model && each !== style);
  const kept = $("second").value;
  $("second").replaceChildren(new Option("no other style", ""));
  for (const each of others) $("second").add(new Option(each.title, site.styles.indexOf(each)));
  $("second").value = others.some((each) => String(site.styles.indexOf(each)) === kept) ? kept : "";
  $("mixing").hidden = !others.length;
  $("share").disabled = $("second").value === "";
  if (state.bitmap) await preview();
  else if (style.own) say("Your painting is the style now; choose a photograph.");
}

// --- pictures -----------------------------------------------------------------------------------

async function take(bitmap, name) {
  Object.assign(state, { bitmap, name, output: null, result: null });
  const [width, height] = fitted(bitmap.width, bitmap.height, PREVIEW);
  state.photo = pixels(bitmap, width, height);
  for (const canvas of ["before", "after"]) shown(state.photo, $(canvas));
  $("empty").hidden = true;
  $("frame").hidden = false;
  listSizes();
  await preview();
  await thumbnails();
}

/** The sizes of results that the photograph has pixels for. */
function listSizes() {
  const { width, height } = state.bitmap;
  const sides = SIZES.filter((side) => side < Math.max(width, height) && side ** 2 < MOST * 1.6);
  const options = sides.map((side) => new Option(fitted(width, height, side).join(" × "), side));
  const painted = fitted(width, height);
  const whole = painted[0] < width ? `, painted at ${painted.join(" × ")}` : "";
  options.push(new Option(`${width} × ${height}${whole}`, ""));
  $("size").replaceChildren(...options);
  $("size").value = "";
  $("size").disabled = false;
}

/** The network's result in a style that is given, of a picture at the size that it is shown at. */
async function painted(photo, style, given, words) {
  const stroke = STROKES[$("stroke").value] * Math.sqrt(Math.max(1, Math.max(photo.width, photo.height) / style.grow_from));
  const least = Math.min(photo.width, photo.height) / 16;
  const scale = Math.min(stroke, Math.max(1, least));
  const [width, height] = fitted(Math.round(photo.width / scale), Math.round(photo.height / scale));
  const seen = resized(photo, width, height);
  say(words, 0);
  const copy = { ...seen, rgb: seen.rgb.slice(), variation: style.variation };
  const output = await engine.run(style.model, given, copy, (share) => say(words, share));
  return resized(output, photo.width, photo.height);
}

/** What the network is given of a style. */
function given(style) {
  return style.own ? parametersOf(style, engine, say) : mixture(style);
}

function finish(photo, output) {
  return finished(photo, output, { strength: $("strength").value / 100, colours: $("colours").checked });
}

/** Paint what is shown; of several that are asked for meanwhile, the last. */
async function preview() {
  const turn = ++state.turn;
  await load();
  if (turn !== state.turn) return;
  const { photo, style } = state;
  const own = await given(style);
  if (turn !== state.turn || photo !== state.photo) return;
  const output = await painted(photo, style, own, "Painting …");
  if (turn !== state.turn || photo !== state.photo) return;
  state.output = output;
  show();
}

function show() {
  if (!state.output) return;
  state.result = finish(state.photo, state.output);
  shown(state.result, $("after"));
  $("download").disabled = false;
  say(`${state.style.title}, ${state.photo.width} × ${state.photo.height} pixels shown.`);
}

/** Every style on the photograph, small, one after the other; a new photograph ends it. */
async function thumbnails() {
  const { bitmap } = state;
  const side = Math.min(bitmap.width, bitmap.height);
  const square = canvasOf(THUMBNAIL, THUMBNAIL);
  const middle = await createImageBitmap(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side);
  const small = pixels(middle, ...fitted(side, side, THUMBNAIL));
  for (const style of site.styles.filter((each) => !each.own)) {
    if (bitmap !== state.bitmap) return;
    const copy = { ...small, rgb: small.rgb.slice() };
    const output = await engine.run(style.model, mixture(style, true), copy);
    if (bitmap === state.bitmap) drawn(style.canvas, shown(output, square));
    style.button.dataset.ready = "true";
  }
}

async function load() {
  if (engine.about) return;
  say("Loading the network …", 0);
  await engine.load(state.style.model, (share) => say("Loading the network …", share));
  const { provider, threads } = engine.about;
  document.documentElement.dataset.runtime = `${provider}, ${threads}`;
}

async function download() {
  const { bitmap, style } = state;
  const side = Number($("size").value) || Infinity;
  const [width, height] = fitted(bitmap.width, bitmap.height, side);
  let result = state.result;
  if (width !== state.photo.width || height !== state.photo.height) {
    const photo = pixels(bitmap, width, height);
    const output = await painted(photo, style, await given(style), `Painting ${width} × ${height} pixels …`);
    if (bitmap !== state.bitmap) return;
    Object.assign(state, { photo, output });
    shown(photo, $("before"));
    show();
    result = state.result;
  }
  let canvas = shown(result);
  if (side === Infinity && width < bitmap.width) {
    const large = canvasOf(bitmap.width, bitmap.height);
    large.getContext("2d").imageSmoothingQuality = "high";
    large.getContext("2d").drawImage(canvas, 0, 0, large.width, large.height);
    canvas = large;
  }
  const type = canvas.width * canvas.height > MOST ? "image/jpeg" : "image/png";
  const blob = await new Promise((done) => canvas.toBlob(done, type, 0.95));
  if (!blob) throw new Error("There is too little memory for this size; choose a smaller one.");
  const link = document.createElement("a");
  const url = URL.createObjectURL(blob);
  Object.assign(link, { href: url, download: `${state.name}_${state.style.name}.${type === "image/png" ? "png" : "jpg"}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  say(`Saved ${link.download}, ${canvas.width} × ${canvas.height} pixels.`);
}

// --- what the user does -------------------------------------------------------------------------

async function openFile(file) {
  const bitmap = await opened(file);
  await take(bitmap, (file.name || "picture").replace(/\.[^.]*$/, ""));
}

function listen() {
  $("choose").onclick = () => $("file").click();
  $("file").onchange = safely(async () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) await openFile(file);
  });
  $("camera").onclick = safely(async () => {
    const bitmap = await taken();
    if (bitmap) await take(bitmap, "camera");
  });
  document.addEventListener("paste", safely(async (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file && !event.defaultPrevented) await openFile(file);
  }));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => $("stage").classList.remove("over"));
  document.addEventListener("drop", safely(async (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) await openFile(file);
  }));
  $("split").oninput = () => $("frame").style.setProperty("--split", `${$("split").value}%`);
  $("strength").oninput = () => {
    $("strength-value").textContent = `${$("strength").value} %`;
    show();
  };
  $("colours").onchange = show;
  $("stroke").oninput = () => ($("stroke-value").textContent = `${STROKES[$("stroke").value]} ×`);
  for (const id of ["stroke", "share"]) $(id).onchange = safely(() => state.bitmap && preview());
  $("second").onchange = safely(() => {
    $("share").disabled = $("second").value === "";
    return state.bitmap && preview();
  });
  $("download").onclick = safely(async () => {
    $("download").disabled = true;
    try {
      await download();
    } finally {
      $("download").disabled = !state.result;
    }
  });
}

async function main() {
  listen();
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it the page works, but for offline
  const response = await fetch("site.json");
  if (!response.ok) throw new Error("site.json cannot be loaded; build the page again with fststyle web.");
  site = await response.json();
  site.styles = site.models.flatMap((model) => model.styles.map((style, index) => ({ ...style, model, index })));
  if (site.own) site.styles.unshift(ownStyle(site.own));
  engine = new Engine(site, new URLSearchParams(location.search).get("gpu") !== "no");
  listStyles();
  await choose(site.styles.find((style) => !style.own));
  document.documentElement.dataset.ready = "true";
}

safely(main)();
