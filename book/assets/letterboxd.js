/* A Letterboxd export, read in the page by the rules of nbrec/letterboxd.py. */
(() => {
  const FILES = ["diary.csv", "watched.csv", "ratings.csv"];
  const HOW = ["exact", "article", "accent", "alternative title", "year off by one"];
  const REFUSED = {
    watchlist: "the watchlist holds films that have not been seen",
    profile: "the profile holds a person's name and address, and no films; it was not opened",
    reviews: "the reviews are in diary.csv too, without their texts",
  };
  const NOT_LISTS = ["deleted", "orphaned", "lists", "likes", "__macosx"];
  const MAX_FILE = 16 * 2 ** 20, MAX_ARCHIVE = 64 * 2 ** 20, MAX_MEMBERS = 10000;
  const MAX_ROWS = 100000, MAX_NAME = 500;
  const GIVE = "Give watched.csv, ratings.csv, diary.csv or the whole zip of the Letterboxd export.";
  const bad = (where, found, advice = GIVE) => new Error(`${where}: found ${found}. ${advice}`);

  // --- titles, as nbrec/titles.py ------------------------------------------------------------

  const ARTICLES = "The|A|An|Le|La|Les|L'|Un|Une|El|Los|Las|Una|Il|Lo|Gli|I|Der|Die|Das|Ein|Eine|"
    + "De|Den|Det|Het|En|Ett";
  const ENGLISH = ["", "the", "a", "an"];
  const NO_ACCENT = { ø: "o", ł: "l", đ: "d", æ: "ae", œ: "oe", ı: "i" };
  const folded = (text) => text.toLowerCase().replace(/ß/g, "ss");

  function names(title) {
    const [, main, brackets] = title.match(/^(.*?)((?: \([^()]+\))*)$/s);
    return [main, ...[...brackets.matchAll(/\(([^()]+)\)/g)].map((found) => found[1])]
      .map((part) => part.replace(/^a\.k\.a\.\s*/i, ""));
  }
  function article(name) {
    const found = name.replaceAll("’", "'").match(
      new RegExp(`^(?:${ARTICLES})(?=\\s+\\S|(?<=')\\S)`, "i"));
    return found ? folded(found[0]) : "";
  }
  function withoutSigns(name) {
    const plain = folded(name).normalize("NFKD").replace(/[øłđæœı]/g, (c) => NO_ACCENT[c]);
    return plain.replace(/[&+]/g, "and").replace(/[^\p{L}\p{N}]/gu, "") || name;
  }
  const keys = (title) => new Set(names(title).map((n) => withoutSigns(n.slice(article(n).length))));

  function difference(one, other) {
    const articles = [article(one), article(other)];
    if (articles[0] !== articles[1]
      && !(articles.includes("") && articles.every((a) => ENGLISH.includes(a)))) return null;
    [one, other] = [folded(one), folded(other)];
    if (one === other) return 0;
    [one, other] = [one, other].map((name, i) => name.slice(articles[i].length).trim());
    if (one === other) return 1;
    return withoutSigns(one) === withoutSigns(other) ? 2 : null;
  }
  function step(name, film, moved) {
    const [main, ...others] = names(film.title);
    const steps = [film.title, main].map((known) => difference(name, known)).filter((s) => s !== null);
    if (steps.length) return Math.max(Math.min(...steps), moved ? 1 : 0);
    return names(name).every((part) => [main, ...others].some((known) =>
      difference(part, known) !== null)) ? 3 : null;
  }

  /* Each film of an export -> a film of MovieLens, or why not. */
  function match(rows, data) {
    const byKey = new Map(), moved = new Set(data.moved);
    data.keys.forEach((list, row) => list.forEach((key) =>
      byKey.set(key, [...(byKey.get(key) || []), data.films[row]])));
    const year = (film) => Number(film.year || data.years[film.id]) || null;
    const less = (a, b) => a[0] - b[0] || a[1] - b[1];
    const found = rows.map((row) => {
      const same = new Map();
      keys(row.name).forEach((key) => (byKey.get(key) || []).forEach((film) => {
        const which = step(row.name, film, moved.has(film.row));
        if (which !== null) same.set(film, which);
      }));
      const near = [...same].filter(([film]) => row.year && year(film)
        && Math.abs(row.year - year(film)) <= 1)
        .map(([film, which]) => ({ film, score: [Math.abs(row.year - year(film)), which] }))
        .sort((a, b) => less(a.score, b.score));
      const best = near.filter(({ score }) => !less(score, near[0].score));
      if (best.length === 1) return { ...row, ...best[0] };
      const listed = (best.length ? best.map(({ film }) => film) : [...same.keys()])
        .map(nbrecPlay.named).join(", ");
      return { ...row, reason: !same.size ? "no film of this name"
        : best.length ? `several films are equally near: ${listed}`
          : !row.year ? `the export gives no year, so it may or may not be ${listed}`
            : `films of this name are of another or no year: ${listed}` };
    });
    const groups = new Map();
    found.filter((one) => one.film).forEach((one) =>
      groups.set(one.film, [...(groups.get(one.film) || []), one]));
    groups.forEach((group, film) => {
      const nearest = group.map((one) => one.score).sort(less)[0];
      const first = group.filter((one) => !less(one.score, nearest));
      group.forEach((one) => {
        if (first.length === 1 && one === first[0]) return;
        one.reason = `another film of the export fits ${nbrecPlay.named(film)} `
          + (less(one.score, nearest) ? "better" : "as well");
        delete one.film;
      });
    });
    found.filter((one) => one.film).forEach((one) => {
      one.how = HOW[one.score[0] ? 4 : one.score[1]];
    });
    return { matched: found.filter((one) => one.film), unmatched: found.filter((one) => !one.film) };
  }

  // --- from bytes to films -------------------------------------------------------------------

  /* Fields of a csv, quotes in pairs; rows of one empty field are left out. */
  function* csv(text, where) {
    let row = [], field = "", at = 0, line = 1;
    const end = (stop) => {
      row.push(field);
      field = "";
      if (!stop) return null;
      const done = row;
      row = [];
      return done.length > 1 || done[0] ? done : null;
    };
    while (at < text.length) {
      const c = text[at];
      if (c === '"') {
        if (field) throw bad(`${where}, line ${line}`, "a quote inside a field");
        for (at++; ; at++) {
          const close = text.indexOf('"', at);
          if (close < 0) throw bad(`${where}, line ${line}`, "a quote that is not closed");
          field += text.slice(at, close);
          at = close + 1;
          if (text[at] !== '"') break;
          field += '"';
        }
        if (at < text.length && !",\r\n".includes(text[at])) {
          throw bad(`${where}, line ${line}`, "text behind a closed quote");
        }
      } else if (c === "," || c === "\n" || c === "\r") {
        const done = end(c !== ",");
        if (done) yield [done, line];
        if (c === "\r" && text[at + 1] === "\n") at++;
        if (c !== ",") line++;
        at++;
      } else {
        const next = text.slice(at).search(/[",\r\n]/);
        const stop = next < 0 ? text.length : at + next;
        field += text.slice(at, stop);
        at = stop;
        if (text[at] === '"') throw bad(`${where}, line ${line}`, "a quote inside a field");
      }
    }
    const done = end(true);
    if (done) yield [done, line];
  }

  function table(bytes, where) {
    if (bytes.length > MAX_FILE) throw bad(where, `more than ${MAX_FILE} bytes`);
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw bad(where, "bytes that are not UTF-8");
    }
    // eslint-disable-next-line no-control-regex
    if (/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text)) throw bad(where, "control characters");
    if ((text.match(/[\r\n]/g) || []).length > 2 * MAX_ROWS) throw bad(where, "too many lines");
    const rows = csv(text, where);
    const header = rows.next().value?.[0] || [];
    if (header.includes("Review")) throw bad(where, REFUSED.reviews);
    ["Date", "Name", "Year"].forEach((column) => {
      if (header.filter((h) => h === column).length !== 1) {
        throw bad(where, `a header without one ${column}`);
      }
    });
    const kind = FILES[header.includes("Watched Date") ? 0 : header.includes("Rating") ? 2 : 1];
    const films = [];
    for (const [fields, line] of rows) {
      if (fields.length !== header.length) {
        throw bad(`${where}, line ${line}`, `${fields.length} fields instead of ${header.length}`);
      }
      films.push(filmOf(Object.fromEntries(header.map((h, i) => [h, fields[i]])),
        `${where}, line ${line}`, line));
    }
    return { kind, films };
  }

  function filmOf(row, where, line) {
    const name = row.Name.split(/\s+/).filter(Boolean).join(" ");
    const year = row.Year.trim(), rating = (row.Rating || "").trim();
    const date = (row["Watched Date"] || "").trim() || row.Date.trim();
    if (!name || name.length > MAX_NAME) throw bad(where, `a name of ${name.length} characters`);
    if (year && !(/^\d{4}$/.test(year) && year >= 1870 && year <= 2100)) {
      throw bad(where, `the year ${year.slice(0, 20)}`);
    }
    if (rating && !(/^[0-5](\.[05])?$/.test(rating) && rating >= 0.5 && rating <= 5)) {
      throw bad(where, `the rating ${rating.slice(0, 20)}`);
    }
    const when = /^\d{4}-\d\d-\d\d$/.test(date) && new Date(`${date}T00:00:00Z`);
    if (!when || Number.isNaN(+when) || when.toISOString().slice(0, 10) !== date
      || date < "1900" || date >= "2101") {
      throw bad(where, `the date ${date.slice(0, 20)}`);
    }
    return { name, year: Number(year) || null, date, line, rating: rating ? Number(rating) : NaN };
  }

  /* The lists of seen films in a zip; nothing else of it is unpacked. */
  async function members(bytes, where) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let end = bytes.length - 22;
    while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
    const damaged = () => bad(where, "a damaged archive", "Export your data anew from Letterboxd.");
    if (end < 0) throw damaged();
    const count = view.getUint16(end + 10, true);
    if (count > MAX_MEMBERS) throw bad(where, `more than ${MAX_MEMBERS} files`);
    let at = view.getUint32(end + 16, true);
    const lists = {};
    try {
      for (let i = 0; i < count; i++) {
        if (view.getUint32(at, true) !== 0x02014b50) throw damaged();
        const lengths = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
        const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + lengths[0]))
          .replaceAll("\\", "/");
        const parts = name.split("/"), file = parts.pop();
        if (parts.includes("..") || name.startsWith("/") || /^[^/]*:/.test(name)) {
          throw bad(where, `a file named ${name.slice(0, 80)}`);
        }
        if (FILES.includes(file) && parts.length < 2
          && !NOT_LISTS.includes((parts[0] || "").toLowerCase())) {
          if (lists[file]) throw bad(where, `${file} twice`);
          lists[file] = { flags: view.getUint16(at + 8, true), method: view.getUint16(at + 10, true),
            packed: view.getUint32(at + 20, true), size: view.getUint32(at + 24, true),
            offset: view.getUint32(at + 42, true) };
        }
        at += 46 + lengths[0] + lengths[1] + lengths[2];
      }
      for (const [file, one] of Object.entries(lists)) {
        if (one.flags & 1) throw bad(`${where}/${file}`, "a file with a password");
        if (one.size > MAX_FILE) throw bad(`${where}/${file}`, `${one.size} bytes when unpacked`);
        const start = one.offset + 30 + view.getUint16(one.offset + 26, true)
          + view.getUint16(one.offset + 28, true);
        const packed = bytes.subarray(start, start + one.packed);
        if (one.method !== 0 && one.method !== 8) throw damaged();
        lists[file] = one.method ? await unpacked(packed, `${where}/${file}`) : packed;
      }
    } catch (error) {
      throw error instanceof RangeError || error instanceof TypeError ? damaged() : error;
    }
    if (!Object.keys(lists).length) throw bad(where, `none of ${FILES.join(", ")} in it`);
    return FILES.filter((file) => lists[file]).map((file) => [file, lists[file]]);
  }

  /* Stops at the limit, whatever the archive claims. */
  async function unpacked(bytes, where) {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))
      .getReader();
    const pieces = [];
    for (let size = 0; ;) {
      const { done, value } = await reader.read();
      if (done) return new Uint8Array(await new Blob(pieces).arrayBuffer());
      size += value.length;
      if (size > MAX_FILE) {
        await reader.cancel();
        throw bad(where, `more than ${MAX_FILE} bytes when unpacked`);
      }
      pieces.push(value);
    }
  }

  /* The films of a file, each once, in the order of viewing. */
  async function films(file) {
    const name = file.name.split(/[\\/]/).pop();
    Object.entries(REFUSED).forEach(([word, reason]) => {
      if (name.toLowerCase().includes(word)) throw bad(name, reason);
    });
    if (file.size > MAX_ARCHIVE) throw bad(name, `more than ${MAX_ARCHIVE} bytes`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    const zipped = bytes[0] === 0x50 && bytes[1] === 0x4b;
    if (!zipped && name.toLowerCase().endsWith(".zip")) throw bad(name, "no zip archive");
    const lists = zipped ? (await members(bytes, name)).map(([file_, content]) =>
      [file_, table(content, `${name}/${file_}`).films]) : [];
    if (!zipped) {
      const { kind, films: rows } = table(bytes, name);
      if (kind === "watched.csv" && !name.toLowerCase().includes("watched")) {
        throw bad(name, "the header of both watched.csv and watchlist.csv",
          "If these are seen films, name the file watched.csv.");
      }
      lists.push([kind, rows]);
    }
    const later = (a, b) => a.date < b.date ? -1 : a.date > b.date ? 1 : a.line - b.line;
    const groups = new Map();
    lists.forEach(([list, rows]) => rows.forEach((row) => {
      const key = `${row.year} ${row.name}`, place = FILES.indexOf(list);
      groups.set(key, [...(groups.get(key) || []), { ...row, place }]);
    }));
    return [...groups.values()].map((group) => {
      const first = Math.min(...group.map((row) => row.place));
      const last = group.filter((row) => row.place === first).sort(later).at(-1);
      const rated = group.filter((row) => !Number.isNaN(row.rating))
        .sort((a, b) => a.place - b.place || later(a, b)).at(-1);
      return { ...last, rating: rated ? rated.rating : NaN };
    }).sort((a, b) => a.date < b.date ? -1 : a.date > b.date ? 1 : a.place - b.place || a.line - b.line);
  }

  window.nbrecLetterboxd = { films, match };
})();
