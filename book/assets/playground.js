/* The page "Playground": a history of films goes in, a model's next films come out. */
(() => {
  const { films, filled, find, load, named, session, element, search, progress } = nbrecPlay;
  const $ = (id) => document.getElementById(`play-${id}`);

  let data, tell, reader;
  let history = [];    // films, oldest first
  let target = null;   // the true next film of a test user
  let models = {};     // name -> promise of { score(items), why(items, item) }
  let asked = false;   // whether there were recommendations already
  let latest = 0;

  // --- models --------------------------------------------------------------------------------

  /* score_j = sum over the history of |U_i and U_j| / sqrt(|U_i| |U_j|), U_i: who has seen i. */
  function itemKNN() {
    const viewers = data.catalogue.map(() => []);
    data.train.forEach((items, user) => items.forEach((i) => viewers[i].push(user)));
    const root = viewers.map((users) => Math.sqrt(users.length));
    const votes = (items) => {
      const weight = new Float64Array(data.train.length);
      items.forEach((i) => viewers[i].forEach((user) => { weight[user] += 1 / root[i]; }));
      return weight;
    };
    return {
      async score(items) {
        const weight = votes(items);
        return viewers.map((users, j) =>
          users.length ? users.reduce((sum, user) => sum + weight[user], 0) / root[j] : 0);
      },
      async why(items, item) {
        const seen = new Set(viewers[item]);
        return { how: data.how.contributions, weights: items.map((i) =>
          viewers[i].filter((user) => seen.has(user)).length / (root[i] * root[item] || 1)) };
      },
    };
  }

  async function network(name) {
    const made = await session(name, tell);
    let queue = Promise.resolve();  // a session does one thing at a time
    const run = (items) => {
      const recent = items.slice(-data.length), padded = new Int32Array(data.length);
      padded.set(recent);
      const asks = { items: new ort.Tensor("int32", padded, [1, data.length]),
        length: new ort.Tensor("int32", new Int32Array([recent.length]), [1]) };
      queue = queue.catch(() => {}).then(() => made.run(asks));
      return queue;
    };
    const score = async (items) => (await run(items)).scores.data;
    return {
      score,
      async why(items, item) {
        const recent = items.slice(-data.length), whole = await run(recent);
        if (whole.attention) {
          return { how: data.how.attention, more: data.said.attention,
            weights: [...whole.attention.data.slice(0, recent.length)] };
        }
        const scores = whole.scores.data, weights = [];
        for (let i = 0; i < recent.length; i++) {
          const without = recent.length > 1
            ? (await score(recent.filter((_, k) => k !== i)))[item]
            : scores.reduce((sum, s) => sum + s, 0) / scores.length;
          weights.push(scores[item] - without);
          if (i % 8 === 7) await new Promise((next) => setTimeout(next));  // let the page breathe
        }
        return { how: data.how["left out"], weights };
      },
    };
  }
  function model(name) {
    models[name] = models[name] || (name === "item-knn" ? Promise.resolve(itemKNN())
      : network(name)).catch((error) => { delete models[name]; throw error; });
    return models[name];
  }

  /* Cosines of the catalogue to films of which a model knows nothing, or null. */
  async function byContent(films) {
    const place = new Map(data.others.map((row, i) => [row, data.catalogue.length + i]));
    const rows = films.map((film) => film.item === null ? place.get(film.row) : film.item)
      .filter((row) => row !== undefined);
    if (!rows.length) return null;
    const space = nbrecPlay.vectors(await load("vectors-minibert", tell));
    const mean = new Float64Array(space.width);
    rows.forEach((row) => space.unit(row).forEach((x, d) => { mean[d] += x; }));
    const size = Math.hypot(...mean);
    return data.catalogue.map((_, i) =>
      space.unit(i).reduce((sum, x, d) => sum + x * mean[d], 0) / size);
  }

  // --- recommendations -----------------------------------------------------------------------

  const chosen = () => document.querySelector("input[name=play-model]:checked").value;

  async function recommend() {
    const ticket = ++latest, name = chosen(), label = data.labels[name];
    const items = history.map((film) => film.item).filter((item) => item !== null);
    const outside = history.filter((film) => film.item === null);
    asked = true;
    $("results").setAttribute("aria-busy", "true");
    try {
      const made = await model(name);
      const began = performance.now();
      let scores = items.length ? await made.score(items) : null, how = "model", note = "";
      const seen = new Set($("hide").checked ? items : []);
      // A sum of similarities that is 0 is no opinion: nobody has seen both films.
      const spoken = (i) => !seen.has(i) && (name !== "item-knn" || scores[i] > 0);
      if (!scores || !data.catalogue.some((_, i) => spoken(i))) {
        how = (scores = history.length ? await byContent(history) : null) ? "content" : "popular";
        scores = scores || data.popularity;
        note = filled(data.said[history.length ? how : "empty"], label, data.labels.minibert);
      }
      const time = performance.now() - began;
      if (ticket !== latest) return;
      if (how === "model" && outside.length) {
        note = `${outside.length} of your films ${outside.length > 1 ? "are" : "is"} not in the `
          + "catalogue and passed over.";
      }
      if (how === "model" && items.length > data.length && name !== "item-knn") {
        note += ` ${label} sees the last ${data.length} films.`;
      }
      show(name, scores, how === "model" ? items : [], time, note, how,
        how === "model" ? spoken : (i) => !seen.has(i));
    } catch (error) {
      if (ticket === latest) say(`${label} could not be loaded: ${error.message}.`);
    } finally {
      $("progress").hidden = true;
      $("reading").textContent = "";
      $("results").removeAttribute("aria-busy");
    }
  }

  function show(name, scores, items, time, note, how, allowed) {
    const hide = $("hide").checked, seen = new Set(items);
    const k = Math.min(data.most, Math.max(1, Math.round($("k").value) || data.k));
    const order = Array.from(scores, (_, i) => i).filter((i) => !(hide && seen.has(i)))
      .sort((a, b) => scores[b] - scores[a] || a - b);
    const best = order.filter(allowed).slice(0, k);
    if (best.length < Math.min(k, order.length)) {
      note += ` ${filled(data.said.few, data.labels[name], best.length)}`;
    }
    const powers = best.map((i) => Math.exp(scores[i] - scores[best[0]]));
    const sum = powers.reduce((a, b) => a + b, 0);
    const focus = [...$("results").children].findIndex((row) =>
      row.contains(document.activeElement));
    $("results").replaceChildren(...best.map((item, i) =>
      result(name, items, item, i + 1, measured(how, powers[i] / sum, scores[item]),
        scores[item])));
    if (focus >= 0) $("results").children[Math.min(focus, best.length - 1)]
      ?.querySelector("button:last-of-type:not(:disabled)")?.focus();
    say(`${best.length} recommendations${items.length ? ` of ${data.labels[name]}` : ""} in `
      + `${time < 10 ? time.toFixed(1) : Math.round(time)} ms. ${note}`);
    showTarget(scores, order);
    const { metrics } = data;
    $("quality").textContent = `On ${metrics[name].users} test users ${data.labels[name]} has the true `
      + `next film among its first 20 for ${(100 * metrics[name]["hr@20"]).toFixed(1)}%.`;
  }

  /* Width of a bar, and what stands beside it: only a model's scores make confidences. */
  const measured = (how, share, score) => how === "content" ? [score, `cosine ${score.toFixed(2)}`]
    : how === "popular" ? [score / 1000, `${(score / 10).toFixed(1)}% of users`]
      : [share, `${(100 * share).toFixed(1)}%`];

  function result(name, items, item, place, [share, words], score) {
    const film = data.items[item];
    const reason = element("div", { id: `play-why-${place}`, class: "play-why", hidden: true });
    const button = element("button", { type: "button", "aria-expanded": "false",
      "aria-controls": reason.id, "aria-label": `Why ${named(film)}?`, onclick: async () => {
        reason.hidden = !reason.hidden;
        button.setAttribute("aria-expanded", String(!reason.hidden));
        if (!reason.hidden && !reason.firstChild) {
          reason.textContent = "…";
          reason.replaceChildren(...explained(items, await (await model(name)).why(items, item)));
        }
      } }, "Why?");
    const add = element("button", { type: "button", "aria-label": `Add ${named(film)} to the history`,
      disabled: history.includes(film), onclick: () => put([...history, film], true) }, "+ seen");
    return element("li", { "data-movie": film.id, "data-score": score,
      class: film === target ? "play-true" : "" },
      element("span", { class: "play-place" }, String(place)),
      element("div", { class: "play-film" },
        element("strong", {}, named(film)), " ",
        element("small", {}, film.genres.join(", ")),
        film === target ? element("em", {}, " ✓ the true next film") : "",
        element("div", { class: "play-bar", "aria-hidden": "true" },
          element("span", { style: `width:${100 * share}%` }))),
      element("span", { class: "play-share" }, words),
      ...(items.length ? [button, add, reason] : [add]));
  }

  function explained(items, { how, weights, more }) {
    const used = items.slice(-weights.length).map((item, i) => [data.items[item], weights[i]]);
    const largest = Math.max(...weights.map(Math.abs)) || 1;
    used.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    return [element("p", {}, `Shown: ${how}.${more ? ` ${more}` : ""}`
      + (used.length > data.reasons ? ` The first ${data.reasons} of ${used.length} films.` : "")),
    element("ol", {}, ...used.slice(0, data.reasons).map(([film, weight]) => element("li", {},
      `${named(film)} `, element("span", {}, weight.toFixed(3).replace("-", "\u2212")),
      element("div", { class: weight < 0 ? "play-bar play-less" : "play-bar", "aria-hidden": "true" },
        element("span", { style: `width:${100 * Math.abs(weight) / largest}%` })))))];
  }

  function showTarget(scores, order) {
    $("target").hidden = !target;
    if (!target) return;
    const rank = scores && order.includes(target.item)
      && order.filter((i) => i !== target.item && scores[i] >= scores[target.item]).length + 1;
    $("target").textContent = `The true next film is ${named(target)}`
      + (rank ? `: rank ${rank} of ${order.length}.` : ".");
  }

  const say = (text) => { $("status").textContent = text.trim(); };

  // --- the history ---------------------------------------------------------------------------

  function put(next, again = asked) {
    history = next;
    draw();
    if (again) recommend();
  }
  function replace(next, truth = null, note = "") {
    target = truth;
    showTarget();
    $("note").textContent = note;
    put(next);
  }
  function move(from, to) {
    if (to < 0 || to >= history.length || from === to) return false;
    const next = [...history];
    next.splice(to, 0, ...next.splice(from, 1));
    put(next);
    $("note").textContent = `${named(history[to])} is now ${to + 1} of ${history.length}.`;
    return true;
  }

  function draw() {
    $("count").textContent = history.length ? `${history.length} film${history.length > 1 ? "s" : ""}`
      : "no film yet";
    $("history").replaceChildren(...history.map((film, i) => {
      const button = (text, words, act, off) => element("button", { type: "button", disabled: off,
        "aria-label": `${words} ${named(film)}`, onclick: act }, text);
      const step = (by, which) => () => {
        if (!move(i, i + by)) return;
        const buttons = $("history").children[i + by].querySelectorAll("button");
        (buttons[which].disabled ? buttons[1 - which] : buttons[which]).focus();
      };
      const grip = element("span", { class: "play-grip", "aria-hidden": "true", title: "drag" }, "⠿");
      const row = element("li", { "data-movie": film.id }, grip,
        element("span", { class: "play-name" }, named(film),
          film.item === null ? element("small", {}, " not in the catalogue") : ""),
        button("↑", "Earlier:", step(-1, 0), i === 0),
        button("↓", "Later:", step(1, 1), i === history.length - 1),
        button("✕", "Remove", () => {
          put(history.filter((other) => other !== film));
          const rows = $("history").children;
          (rows.length ? rows[Math.min(i, rows.length - 1)].querySelector("button:last-child")
            : $("search")).focus();
        }));
      drag(grip, row);
      return row;
    }));
    $("clear").disabled = !history.length;
  }

  /* Pointer events work for mouse, pen and finger alike. The document hears them, because a row
     that moves in the list loses what it had captured. */
  function drag(grip, row) {
    grip.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      row.classList.add("play-dragged");
      const list = $("history"), from = [...list.children].indexOf(row);
      const follow = ({ clientY }) => {
        const over = [...list.children].find((other) => other !== row
          && clientY > other.getBoundingClientRect().top
          && clientY < other.getBoundingClientRect().bottom);
        if (!over) return;
        const box = over.getBoundingClientRect(), below = clientY > box.top + box.height / 2;
        list.insertBefore(row, below ? over.nextSibling : over);
      };
      const drop = () => {
        document.removeEventListener("pointermove", follow);
        ["pointerup", "pointercancel"].forEach((end) => document.removeEventListener(end, drop));
        if (!move(from, [...list.children].indexOf(row))) draw();
      };
      document.addEventListener("pointermove", follow);
      ["pointerup", "pointercancel"].forEach((end) => document.addEventListener(end, drop));
    });
  }

  // --- where a history comes from ------------------------------------------------------------

  function testUser() {
    const sequence = data.test[Math.floor(Math.random() * data.test.length)];
    const seen = sequence.map((item) => data.items[item]);
    replace(seen.slice(0, -1), seen.at(-1), "A user whom no model was trained on.");
  }

  function genreHistory() {
    const genre = $("genre").value;
    const left = data.items.filter((film) => film.genres.includes(genre));
    const drawn = [];
    while (left.length && drawn.length < data.k) {  // popular films more often
      const weights = left.map((film) => data.popularity[film.item] + 1e-3);
      let at = Math.random() * weights.reduce((a, b) => a + b, 0);
      const i = weights.findIndex((weight) => (at -= weight) < 0);
      drawn.push(...left.splice(i < 0 ? left.length - 1 : i, 1));
    }
    replace(drawn, null, `A made-up history: ${genre}.`);
  }

  /* The films of an export become the history; what was not found may be chosen. */
  function fromLetterboxd(matched, unmatched) {
    const liked = matched.filter(({ rating }) => !(rating < data.lowest));
    const known = liked.filter(({ film }) => film.item !== null);
    const used = (known.length ? known : liked).slice(-data.length).map(({ film }) => film);
    replace(used, null, `${matched.length} of ${matched.length + unmatched.length} films were found `
      + `in MovieLens, ${known.length} of those that you rated ${data.lowest} stars or more, or not `
      + `at all, are in the catalogue. ${used.length < known.length ? `The last ${used.length}` : "They"} are your `
      + "history now.");
    const table = (head, rows) => element("table", { class: "nbrec-table" },
      element("thead", {}, element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {},
        ...row.map((cell) => element("td", {}, ...[cell].flat()))))));
    const shown = ({ name, year }) => year ? `${name} (${year})` : name;
    const choose = (one, film) => {
      const chosen = { ...one, film, how: data.letterboxd.chosen };
      fromLetterboxd([...matched, chosen].sort((a, b) => a.row - b.row),
        unmatched.filter((other) => other !== one));
      $("matches").querySelector("summary").focus();
    };
    const choices = (one) => one.candidates.map((film) => element("button", { type: "button",
      "aria-label": `${shown(one)} is ${named(film)}`, onclick: () => choose(one, film) },
    named(film)));
    $("matches").replaceChildren(element("summary", {}, "What was found, how, and what was not"),
      element("div", { class: "play-scroll", tabindex: "0", role: "region",
        "aria-label": "Films of your file" },
        table(["in your file", "in MovieLens", "how"], matched.map((one) =>
          [shown(one), named(one.film), one.how])),
        table(["not found", "why", "it is"], unmatched.map((one) =>
          [shown(one), one.reason, choices(one)]))));
  }

  async function letterboxd(file) {
    $("matches").hidden = true;
    try {
      const rows = await reader.films(file);
      const { matched, unmatched } = reader.match(rows, data);
      fromLetterboxd(matched, unmatched);
      $("matches").hidden = false;
    } catch (error) {
      $("note").textContent = error.message;
    }
  }

  // --- start ---------------------------------------------------------------------------------

  async function start() {
    tell = progress($("progress"), $("reading"));
    data = await films(tell);
    reader = nbrecLetterboxd(data.letterboxd);
    $("progress").hidden = true;
    $("reading").textContent = "";
    search($("search"), $("found"), (query) =>
      find(data.films.filter((film) => !history.includes(film)), data.popularity, query),
      (film) => put([...history, film]));
    $("genre").append(...data.genres.filter((g) => data.items.some((f) => f.genres.includes(g)))
      .map((genre) => element("option", { selected: genre === "Horror" }, genre)));
    $("user").addEventListener("click", testUser);
    $("draw").addEventListener("click", genreHistory);
    $("clear").addEventListener("click", () => { replace([]); $("search").focus(); });
    $("file").addEventListener("change", ({ target: input }) => {
      if (input.files[0]) letterboxd(input.files[0]);
      input.value = "";
    });
    $("go").addEventListener("click", recommend);
    document.querySelectorAll("input[name=play-model]").forEach((radio) =>
      radio.addEventListener("change", () => recommend()));
    $("k").addEventListener("change", () => asked && recommend());
    $("hide").addEventListener("change", () => asked && recommend());
    draw();
    document.getElementById("playground").querySelectorAll("fieldset").forEach((set) => {
      set.disabled = false;
    });
  }
  start().catch((error) => say(`The films could not be read: ${error.message}.`));
})();
