/* What the pages "Playground" and "Movie space" share: files that lie beside the page, the films,
   and a few elements. Everything is read from the folder of the book; nothing is sent anywhere.

   Files come as scripts of base64 text, because a page that was opened from a folder may load
   scripts but nothing else. Each is a gzip in parts: nbrecPlay.give(name, part, parts, text). */
(() => {
  const base = new URL("play/", document.currentScript.src).href;
  const waiting = {}, files = {};

  function script(address) {
    return new Promise((done, failed) => {
      const tag = document.createElement("script");
      tag.src = address;
      tag.onload = () => { tag.remove(); done(); };
      tag.onerror = () => failed(new Error(`${address.split("/").pop()} is not beside this page`));
      document.head.append(tag);
    });
  }
  const give = (name, part, parts, text) => {
    const file = waiting[name] = waiting[name] || [];
    file.length = parts;
    file[part] = text;
  };

  async function read(name, tell) {
    if (!window.DecompressionStream) throw new Error("this page needs a browser of 2023 or later");
    const part = (number) => script(`${base}${encodeURIComponent(name)}.${number}.js`);
    await part(0);
    const parts = waiting[name];
    let loaded = 1;
    tell(name, loaded / parts.length);
    await Promise.all(Array.from({ length: parts.length - 1 }, (_, i) => part(i + 1).then(() =>
      tell(name, ++loaded / parts.length))));
    const text = atob(parts.join(""));
    delete waiting[name];
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }
  /* The bytes of a file; read once. tell(name, share) is called as parts of it come in. */
  function load(name, tell = () => {}) {
    files[name] = files[name] || read(name, tell).catch((error) => {
      delete files[name];
      throw error;
    });
    return files[name];
  }
  const json = async (name, tell) => JSON.parse(new TextDecoder().decode(await load(name, tell)));

  /* onnxruntime, in this thread and from this folder. */
  let runtime;
  async function start(tell) {
    const [wasm, module] = await Promise.all([load("runtime", tell), load("runtime-module"),
      script(`${base}ort.wasm.min.js`)]);
    const settings = window.ort.env.wasm;
    settings.numThreads = 1;
    settings.wasmBinary = wasm;
    settings.wasmPaths = { mjs: URL.createObjectURL(new Blob([module], { type: "text/javascript" })) };
    return window.ort;
  }
  async function session(name, tell) {
    runtime = runtime || start(tell).catch((error) => { runtime = null; throw error; });
    const [ort, bytes] = await Promise.all([runtime, load(name, tell)]);
    return ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
  }

  /* The films: { id, title, year, genres, item } with item null outside the catalogue. */
  let known;
  function films(tell) {
    known = known || json("films", tell).then((data) => {
      const all = data.films.map(([id, title, year, genres], row) =>
        ({ id, title, year, genres: genres.map((g) => data.genres[g]), row, item: null }));
      data.catalogue.forEach((row, item) => { all[row].item = item; });
      all.forEach((film) => { film.plain = plain(`${film.title} ${film.year}`); });
      return { ...data, films: all, items: data.catalogue.map((row) => all[row]) };
    });
    return known;
  }
  const filled = (text, ...values) => text.replace(/\{\}/g, () => values.shift());
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const named = (film) => film.year ? `${film.title} (${film.year})` : film.title;

  /* Films whose words begin with all words of a query; popular ones and early matches first. */
  function find(all, popularity, query, most = 12) {
    const words = plain(query).split(/[^\p{L}\p{N}]+/u).filter(Boolean);
    if (!words.length) return [];
    const fits = (film) => words.every((word) => {
      const at = film.plain.indexOf(word);
      return at === 0 || at > 0 && (` ${film.plain}`.search(
        new RegExp(`[^\\p{L}\\p{N}]${word}`, "u")) >= 0);
    });
    const worth = (film) => (film.plain.startsWith(words.join(" ")) ? 1 : 0)
      + (film.item === null ? -1 : popularity[film.item]);
    return all.filter(fits).sort((a, b) => worth(b) - worth(a) || a.title.localeCompare(b.title))
      .slice(0, most);
  }

  /* Vectors as book/play.py packs them: unit(i) is the row i, of length 1. */
  function vectors(buffer) {
    const [width, bytes] = new Int32Array(buffer, 0, 2);
    const whole = new (bytes === 1 ? Int8Array : Int16Array)(buffer, 8);
    const unit = (i) => {
      const row = Float64Array.from(whole.subarray(i * width, (i + 1) * width));
      const size = Math.hypot(...row) || 1;
      return row.map((x) => x / size);
    };
    return { width, count: whole.length / width, unit };
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([key, value]) => {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    });
    made.append(...children);
    return made;
  }

  /* A text box with a list of films under it: arrows, Enter, Escape, click and touch. */
  function search(box, list, look, chosen) {
    let found = [], active = -1;
    const show = () => {
      list.replaceChildren(...found.map((film, i) => element("li", {
        role: "option", id: `${list.id}-${i}`, "aria-selected": String(i === active),
        onpointerdown: (event) => event.preventDefault(),  // the box keeps the focus
        onclick: () => take(i),
      }, named(film), ...(film.item === null ? [element("small", {}, " not in the catalogue")] : []))));
      list.hidden = !found.length;
      box.setAttribute("aria-expanded", String(!!found.length));
      if (active >= 0) {
        box.setAttribute("aria-activedescendant", `${list.id}-${active}`);
        list.children[active].scrollIntoView({ block: "nearest" });
      } else box.removeAttribute("aria-activedescendant");
    };
    const close = () => { found = []; active = -1; show(); };
    const take = (i) => {
      const film = found[i];
      box.value = "";
      close();
      chosen(film);
    };
    box.addEventListener("input", () => { found = look(box.value); active = found.length ? 0 : -1; show(); });
    box.addEventListener("blur", close);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && found.length) {
        active = (active + step + found.length) % found.length;
        show();
      } else if (event.key === "Enter" && active >= 0) take(active);
      else if (event.key === "Escape") { box.value = ""; close(); } else return;
      event.preventDefault();
    });
  }

  /* A bar that shows how much of all files asked for has come in. */
  function progress(bar, label) {
    const shares = {};
    return (name, share) => {
      shares[name] = share;
      const all = Object.values(shares);
      bar.value = all.reduce((sum, s) => sum + s, 0) / all.length;
      bar.hidden = false;
      label.textContent = `Reading ${Object.keys(shares).filter((n) => shares[n] < 1).join(", ") || name} …`;
    };
  }

  window.nbrecPlay = { give, load, session, films, filled, vectors, find, named, plain, element,
    search, progress };
})();
