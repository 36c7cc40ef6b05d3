// The network, in a thread of its own. Messages: {id, do: "load" | "run", ...}; answers: {id, result} or {id, error}.

/** How far a GPU's result may lie from the processor's, of 255. */
const TOLERANCE = 2;

let ort;
let provider = "wasm";
const sessions = new Map();

const jobs = {
  /** Load a runtime and a model; says how many bytes have come, in `progress` messages. */
  async load({ id, model, runtime, gpu }) {
    if (!ort) await start(runtime, gpu, (part) => postMessage({ id, progress: part }));
    if (!sessions.has(model.file)) {
      const content = await fetched(model.file, model.bytes, (part) => postMessage({ id, progress: part }));
      sessions.set(model.file, await created(content, model));
    }
    return { provider, threads: ort.env.wasm.numThreads };
  },

  /** A picture to its result; `mixture` for models of several styles. */
  async run({ model, rgb, width, height, mixture }) {
    const result = await applied(sessions.get(model), rgb, width, height, mixture);
    return { rgb: result, width, height };
  },
};

async function start(runtime, gpu, progress) {
  provider = gpu && (await adapter()) ? "webgpu" : "wasm";
  const files = runtime[provider];
  ort = await import(new URL(files.module, import.meta.url));
  const binary = await fetched(files.binary, files.bytes, progress);
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

/** A session on the GPU only if it gives what the processor gives: drivers differ. */
async function created(content, model) {
  const made = (name) => ort.InferenceSession.create(content, { executionProviders: [name], graphOptimizationLevel: "all" });
  if (provider === "wasm") return made("wasm");
  const onProcessor = await made("wasm");
  try {
    const onGpu = await made("webgpu");
    const [width, height] = [40, 24];
    const rgb = Uint8Array.from({ length: 3 * width * height }, (_, at) => (at * at * 31 + at * 17) % 256);
    const mixture = model.styles.length > 1 ? new Float32Array(model.styles.length).fill(1 / model.styles.length) : null;
    const [one, other] = [await applied(onGpu, rgb, width, height, mixture), await applied(onProcessor, rgb, width, height, mixture)];
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

async function applied(session, rgb, width, height, mixture) {
  const feeds = { pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]) };
  if (mixture) feeds.mixture = new ort.Tensor("float32", mixture, [1, mixture.length]);
  const { result } = await session.run(feeds);
  return new Uint8Array(await result.getData(true));
}

/** A file's bytes, told as they come. */
async function fetched(name, bytes, progress) {
  const response = await fetch(new URL(name, import.meta.url));
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
