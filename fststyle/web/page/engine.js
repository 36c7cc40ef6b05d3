// Runs the network in a worker, one picture after the other, and guesses how far it is.

export class Engine {
  #worker = null;
  #waiting = new Map();
  #count = 0;
  #secondsPerPixel = 4e-5;
  #last = Promise.resolve();

  /** @param site what site.json holds. @param gpu whether a GPU is used where there is one. */
  constructor(site, gpu) {
    this.site = site;
    this.gpu = gpu;
    this.about = null;
    this.#start();
  }

  #start() {
    this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      const job = this.#waiting.get(data.id);
      if (!job) return;
      if ("progress" in data) return job.progress(data.progress);
      this.#waiting.delete(data.id);
      if ("error" in data) job.fail(new Error(data.error));
      else job.done(data.result);
    };
    this.#worker.onerror = (event) => {
      for (const job of this.#waiting.values()) job.fail(new Error(event.message || "The page's worker failed; reload it."));
      this.#waiting.clear();
    };
  }

  #ask(message, transfer = [], progress = () => {}) {
    const id = this.#count++;
    return new Promise((done, fail) => {
      this.#waiting.set(id, { done, fail, progress });
      this.#worker.postMessage({ id, ...message }, transfer);
    });
  }

  /** Load a model, once; `progress` gets the share that has come. */
  async load(model, progress = () => {}) {
    const runtime = this.site.runtime;
    const files = [model, ...(model.own ? [model.own.predict, model.own.noise] : [])];
    const total = files.reduce((sum, file) => sum + file.bytes, this.about ? 0 : runtime.wasm.bytes);
    let come = 0;
    const told = (bytes) => progress(Math.min(1, (come += bytes) / total));
    try {
      this.about = await this.#ask({ do: "load", model, runtime, gpu: this.gpu }, [], told);
    } catch (error) {
      if (!this.gpu) throw error;
      this.#replaced(); // the GPU, or its driver, does not do: once more without
      return this.load(model, progress);
    }
  }

  /**
   * A picture in a style; after what was asked for before. `given`: a mixture, an own style's parameters, or null;
   * `progress` gets a guess of the share done.
   */
  run(model, given, picture, progress = () => {}) {
    return this.#after(() => this.#run(model, given, picture, progress));
  }

  /** The parameters of a painting's style; `loading` and `progress` get the shares that have come, and are done. */
  predict(model, painting, loading, progress) {
    return this.#after(() => this.#predict(model, painting, loading, progress));
  }

  #after(job) {
    const result = this.#last.then(job);
    this.#last = result.catch(() => {});
    return result;
  }

  async #predict(model, painting, loading, progress) {
    await this.load(model, loading);
    progress(0);
    try {
      return (await this.#ask({ do: "predict", model: model.file, ...painting }, [], progress)).parameters;
    } catch (error) {
      if (this.about?.provider !== "webgpu") throw error;
      this.#replaced();
      return this.#predict(model, painting, loading, progress);
    }
  }

  async #run(model, given, { rgb, width, height, variation }, progress) {
    await this.load(model);
    const began = performance.now();
    const guess = () => (performance.now() - began) / 1000 / (this.#secondsPerPixel * width * height);
    const timer = setInterval(() => progress(1 - Math.exp(-1.5 * guess())), 100);
    try {
      const how = { given, octaves: model.octaves, variation };
      const result = await this.#ask({ do: "run", model: model.file, rgb, width, height, ...how });
      this.#secondsPerPixel = (performance.now() - began) / 1000 / (width * height);
      return result;
    } catch (error) {
      if (this.about?.provider !== "webgpu") throw error;
      this.#replaced(); // once more without the GPU, whose memory may be too small
      return this.#run(model, given, { rgb, width, height, variation }, progress);
    } finally {
      clearInterval(timer);
    }
  }

  /** A new worker, which uses no GPU. */
  #replaced() {
    this.#worker.terminate();
    [this.gpu, this.about] = [false, null];
    this.#start();
  }
}
