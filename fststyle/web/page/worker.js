// The network, in a thread of its own. Messages: {id, do: "load" | "run" | "predict", ...}; answers: {id, result} or
// {id, error}.

import { resampled } from "./lanczos.js";
import { varied } from "./variation.js";
import { Predictor, bytesOf, imageOf } from "./prediction.js";

/** How far a GPU's result may lie from the processor's, of 255. */
const TOLERANCE = 2;
/** The shortest side that a network takes, pixels. */
const LEAST = 16;

let ort;
let provider = "wasm";
let predictor = null;
const sessions = new Map();

/** A picture to compare them with. */
const TEST = { width: 40, height: 24, rgb: Uint8Array.from({ length: 3 * 40 * 24 }, (_, at) => (at * at * 31 + at * 17) % 256) };

const jobs = {
  /** Load a runtime and a model; says how many bytes have come, in `progress` messages. */
  async load({ id, model, runtime, gpu }) {
    const progress = (part) => postMessage({ id, progress: part });
    if (!ort) await start(runtime, gpu, progress);
    if (!sessions.has(model.file)) {
      const content = await fetched(model, progress);
      let given = null;
      if (model.own) {
        const [graph, noise] = [await fetched(model.own.predict, progress), await fetched(model.own.noise, progress)];
        predictor = new Predictor(ort, await made(graph, "wasm"), noise);
        given = await predictor.predicted(TEST.rgb, TEST.width, TEST.height);
      } else if (model.styles.length > 1) {
        given = new Float32Array(model.styles.length).fill(1 / model.styles.length);
      }
      sessions.set(model.file, await created(content, given));
    }
    return { provider, threads: ort.env.wasm.numThreads };
  },

  /** A picture to its result; `given`: a mixture for models of several styles, parameters of an own style; `variation`
   * of even areas. */
  run({ model, rgb, width, height, given, octaves, variation }) {
    return inOctaves(sessions.get(model), varied({ rgb, width, height }, variation), given, octaves);
  },

  /** A painting to the parameters of its style. */
  async predict({ id, model, rgb, width, height }) {
    const progress = (share) => postMessage({ id, progress: share });
    return { parameters: await predictor.parameters(sessions.get(model), rgb, width, height, progress) };
  },
};

async function start(runtime, gpu, progress) {
  provider = gpu && (await adapter()) ? "webgpu" : "wasm";
  const files = runtime[provider];
  ort = await import(new URL(files.module, import.meta.url));
  const binary = await fetched({ file: files.binary, bytes: files.bytes }, progress);
  ort.env.wasm.wasmBinary = binary.buffer;
  ort.env.wasm.wasmPaths = { mjs: new URL(files.glue, import.meta.url).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
}

async function adapter() {
  try {
    return await navigator.gpu?.requestAdapter();
  } catch {
    return null;
  }
}

function made(content, name) {
  return ort.InferenceSession.create(content, { executionProviders: [name], graphOptimizationLevel: "all" });
}

/** A session on the GPU only if it gives what the processor gives: drivers differ. */
async function created(content, given) {
  if (provider === "wasm") return made(content, "wasm");
  const onProcessor = await made(content, "wasm");
  try {
    const onGpu = await made(content, "webgpu");
    const { rgb, width, height } = TEST;
    const [one, other] = [await applied(onGpu, rgb, width, height, given), await applied(onProcessor, rgb, width, height, given)];
    if (one.every((value, at) => Math.abs(value - other[at]) <= TOLERANCE)) {
      await onProcessor.release();
      return onGpu;
    }
  } catch (error) {
    console.warn(`The GPU is not used: ${error.message}`);
  }
  provider = "wasm";
  return onProcessor;
}

/** From coarse to fine, as fststyle.octaves: each octave sees the mean of the picture and the enlarged result before. */
async function inOctaves(session, picture, given, octaves) {
  const { width, height } = picture;
  let { rgb } = picture;
  if (octaves > 1 && Math.min(width, height) >= 2 * LEAST) {
    const small = resampled(picture, Math.ceil(width / 2), Math.ceil(height / 2));
    const guide = resampled(await inOctaves(session, small, given, octaves - 1), width, height).rgb;
    rgb = rgb.map((value, at) => (value + guide[at] + 1) >> 1);
  }
  return { rgb: await applied(session, rgb, width, height, given), width, height };
}

async function applied(session, rgb, width, height, given) {
  const [picture, own] = session.inputNames;
  const feeds = {};
  if (picture === "pixels") feeds.pixels = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  else feeds[picture] = new ort.Tensor("float32", imageOf(rgb), [1, 3, height, width]);
  if (given) feeds[own] = new ort.Tensor("float32", given, [1, given.length]);
  const { result } = await session.run(feeds);
  const data = await result.getData(true);
  return picture === "pixels" ? new Uint8Array(data) : bytesOf(data);
}

/** A file's bytes, told as they come. */
async function fetched({ file: name, bytes }, progress) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => {
    throw new Error(`${name} cannot be loaded: there is no way to the page's server.`);
  });
  if (!response.ok) throw new Error(`${name} cannot be loaded (${response.status}); reload the page.`);
  const reader = response.body.getReader();
  const content = new Uint8Array(bytes);
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw new Error(`${name} is not the file of this page; reload it.`);
    content.set(value, at);
    at += value.length;
    progress(value.length);
  }
  if (at < bytes) throw new Error(`${name} came in part; reload the page.`);
  return content;
}

onmessage = async ({ data }) => {
  try {
    const result = await jobs[data.do](data);
    postMessage({ id: data.id, result }, result.rgb ? [result.rgb.buffer] : []);
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
