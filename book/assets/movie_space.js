/* The page "Movie space": a film, its nearest films in three dimensions, and a step to the next. */
(() => {
  const { films, find, load, named, vectors, element, search, progress } = nbrecPlay;
  const $ = (id) => document.getElementById(`space-${id}`);
  let data, tell, film, latest = 0;
  const trail = [];

  /* The k nearest by cosine: [item, cosine], nearest first. */
  function nearest(space, item, k) {
    const unit = space.unit(item);
    const cosine = data.items.map((_, i) => space.unit(i).reduce((sum, x, d) => sum + x * unit[d], 0));
    return cosine.map((c, i) => [i, c]).filter(([i]) => i !== item)
      .sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, k);
  }

  /* Fruchterman and Reingold's forces give the directions: films push each other away, and pull
     each other by their cosine, with the film in the middle held fast. The distance from the middle
     is 1 - cosine. */
  function layout(space, item, near) {
    const units = [item, ...near.map(([i]) => i)].map((i) => space.unit(i)), n = units.length;
    const pull = units.map((a) => units.map((b) =>
      Math.max(0, a.reduce((sum, x, d) => sum + x * b[d], 0))));
    // Even starting points on a sphere, the same for everybody.
    const places = units.map((_, i) => {
      if (!i) return [0, 0, 0];
      const z = 1 - (2 * i - 1) / (n - 1 || 1), turn = i * Math.PI * (3 - Math.sqrt(5));
      const r = Math.sqrt(Math.max(0, 1 - z * z));
      return [r * Math.cos(turn), r * Math.sin(turn), z];
    });
    const ideal = Math.cbrt(8 / n), rounds = 80;
    for (let round = 0; round < rounds; round++) {
      const heat = 0.2 * (1 - round / rounds);
      const moves = places.map((p, i) => {
        const force = [0, 0, 0];
        places.forEach((q, j) => {
          if (i === j) return;
          const d = p.map((x, axis) => x - q[axis]), far = Math.max(0.01, Math.hypot(...d));
          const size = ideal * ideal / far ** 2 - pull[i][j] * far / ideal;
          d.forEach((x, axis) => { force[axis] += x * size; });
        });
        return force;
      });
      places.forEach((p, i) => {
        const size = Math.hypot(...moves[i]) || 1;
        if (i) p.forEach((_, axis) => { p[axis] += moves[i][axis] / size * Math.min(size, heat); });
      });
    }
    return places.map((p, i) => {
      const size = Math.hypot(...p) || 1;
      return i ? p.map((x) => x / size * Math.max(1e-3, 1 - near[i - 1][1])) : p;
    });
  }

  function draw(near, places) {
    const style = getComputedStyle(document.body);
    const colour = style.getPropertyValue("--pst-color-text-base").trim() || style.color;
    const points = [film, ...near.map(([i]) => data.items[i])];
    const axis = (a) => places.map((p) => p[a]);
    const edges = (a) => places.slice(1).flatMap((p) => [0, p[a], null]);
    const far = Math.max(...places.map((p) => Math.hypot(...p)));
    // One range for all axes, so that distances are true.
    const hidden = { visible: false, showspikes: false, range: [-far, far] };
    Plotly.react($("graph"), [
      { type: "scatter3d", mode: "lines", hoverinfo: "skip", showlegend: false,
        x: edges(0), y: edges(1), z: edges(2), line: { color: "#8c959f", width: 2 } },
      { type: "scatter3d", mode: "markers+text", showlegend: false,
        x: axis(0), y: axis(1), z: axis(2),
        text: points.map((p) => p.title.length > 24 ? `${p.title.slice(0, 22)}…` : p.title),
        hovertext: points.map((p, i) => i ? `${named(p)}<br>cosine ${near[i - 1][1].toFixed(3)}`
          : named(p)),
        hoverinfo: "text", textfont: { color: colour, size: 11 }, textposition: "top center",
        marker: { opacity: 1, line: { width: 0 }, size: points.map((_, i) => i ? 9 : 13), symbol: points.map((_, i) =>
          i ? "circle" : "diamond"), color: points.map((_, i) => i ? "#0072b2" : "#d55e00") } },
    ], {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: "same",
      scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "cube",
        camera: { eye: { x: 0.9, y: 0.9, z: 0.6 } } },
    }, { displaylogo: false, responsive: true, displayModeBar: false });
    if (!draw.bound) {
      draw.bound = true;
      $("graph").on("plotly_click", ({ points: [point] }) => {
        if (point.curveNumber === 1 && point.pointNumber) walk(draw.points[point.pointNumber]);
      });
    }
    draw.points = points;
  }

  async function show() {
    const ticket = ++latest, name = $("model").value;
    $("list").setAttribute("aria-busy", "true");
    try {
      const space = vectors(await load(`vectors-${name}`, tell));
      if (ticket !== latest) return;
      const k = Math.min(40, Math.max(3, Math.round($("k").value) || 12));
      const began = performance.now();
      const near = nearest(space, film.item, k);
      const places = layout(space, film.item, near);
      const time = performance.now() - began;
      $("title").textContent = named(film);
      $("list").replaceChildren(...near.map(([item, cosine], i) => element("tr",
        { "data-movie": data.items[item].id, "data-cosine": cosine },
        element("td", {}, String(i + 1)),
        element("th", { scope: "row" }, element("button", { type: "button",
          onclick: () => walk(data.items[item], true) }, named(data.items[item]))),
        element("td", {}, data.items[item].genres.join(", ")),
        element("td", {}, cosine.toFixed(3).replace("-", "\u2212")))));
      $("status").textContent = `The ${near.length} films nearest to ${named(film)} for `
        + `${$("model").selectedOptions[0].textContent}, in ${Math.round(time)} ms.`;
      if (window.Plotly) draw(near, places);
    } catch (error) {
      $("status").textContent = `The vectors could not be loaded: ${error.message}.`;
    } finally {
      $("progress").hidden = true;
      $("reading").textContent = "";
      $("list").removeAttribute("aria-busy");
    }
  }

  async function walk(next, focus = false) {
    if (film) trail.push(film);
    film = next;
    $("back").disabled = !trail.length;
    await show();
    if (focus) $("title").focus();
  }

  async function start() {
    tell = progress($("progress"), $("reading"));
    data = await films(tell);
    search($("search"), $("found"), (query) => find(data.items, data.popularity, query), walk);
    $("model").addEventListener("change", show);
    $("k").addEventListener("change", show);
    $("back").addEventListener("click", () => {
      film = trail.pop();
      $("back").disabled = !trail.length;
      show();
    });
    // A page that turns dark or light draws its words anew.
    new MutationObserver(() => film && show()).observe(document.documentElement,
      { attributes: true, attributeFilter: ["data-theme"] });
    document.getElementById("space").querySelector("fieldset").disabled = false;
    await walk(data.items[data.popularity.indexOf(Math.max(...data.popularity))]);
  }
  start().catch((error) => { $("status").textContent = `The films could not be read: ${error.message}.`; });
})();
