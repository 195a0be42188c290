// Browsers refuse workers from the file system. There the search's worker runs in a hidden frame instead.
(function () {
  if (location.protocol !== "file:") return;
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      this.inside = inside;
      this.ready = new Promise((resolve) => {
        inside.document.open();
        inside.document.write("<!doctype html><html><head></head><body></body></html>");
        inside.document.close();
        inside.IFrameWorker = this; // tells the search's script where it runs
        inside.postMessage = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        const load = (address) =>
          new Promise((done, failed) => {
            const script = inside.document.createElement("script");
            script.src = address;
            script.onload = done;
            script.onerror = () => failed(new Error("cannot load " + address));
            inside.document.body.appendChild(script);
          });
        inside.importScripts = (...addresses) => addresses.reduce((before, a) => before.then(() => load(a)), Promise.resolve());
        load(String(url)).then(resolve);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
})();
