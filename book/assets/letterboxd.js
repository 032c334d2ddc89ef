/* A Letterboxd export, read in the page as nbrec/play/letterboxd.py reads it, and matched as
   nbrec/play/matching.py and nbrec/data/titles.py do it: with the same rules and the same words
   (book/play.py hands them over) in the same steps. A test runs both on the same files.

   nbrecLetterboxd(rules) gives films(file), the films of a file, and match(films, data). */
window.nbrecLetterboxd = (rules) => {
  const { files: FILES, how: HOW, signs: SIGNS, english: ENGLISH } = rules;
  const { ARTICLE, ACCENT, ALTERNATIVE, SPELLING, PART, YEAR } = rules.steps;
  const { MAX_FILE, MAX_ARCHIVE, MAX_MEMBERS, MAX_ROWS, MAX_NAME, MAX_FIELD } = rules.limits;
  const { MAX_CANDIDATES, COMMON, MAX_WORDS } = rules.candidates;

  const filled = (text, values) => text.replace(/\{\}/g, () => values.shift());

  // --- titles, as nbrec/data/titles.py ------------------------------------------------------------

  const sign = new RegExp(`[${SIGNS}]+`, "g"), word = new RegExp(`[^${SIGNS}]+`, "g");
  const spellings = rules.spellings.map(([pattern, other]) =>
    [new RegExp(pattern, "g"), other.replace("\\1", "$$1")]);
  const separator = new RegExp(`(${rules.separator})`), owner = new RegExp(rules.owner);
  const numbered = new RegExp(rules.numbered, "g");
  const articles = new RegExp(`^(?:${rules.articles})(?= +[^ ]|(?<=')[^ ])`);
  const letters = new RegExp(`[${Object.keys(rules.letters).join("")}]`, "g");

  function names(title) {
    const others = [];
    while (title.endsWith(")")) {
      const at = title.lastIndexOf(" ("), inner = title.slice(at + 2, -1);
      if (at < 0 || !inner || /[()]/.test(inner)) break;
      title = title.slice(0, at);
      others.unshift(inner);
    }
    return [title, ...others].map((name) => name.replace(/^[aA]\.[kK]\.[aA]\. */, ""));
  }
  const folded = (name) =>
    name.toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ").replaceAll("’", "'");
  const article = (name) => (folded(name).match(articles) || [""])[0];
  const plain = (name) => folded(name.normalize("NFKD")).replace(letters, (c) => rules.letters[c])
    .replaceAll("&", " and ").replaceAll("+", " and ");
  const withoutSigns = (name) => plain(name).replace(sign, "") || name;
  const words = (name) => plain(name).replace(/[\u0300-\u036f'.]/g, "").match(word) || [];

  function spelling(name) {
    const found = [];
    let text = words(name).join(" ");
    spellings.forEach(([pattern, other]) => { text = text.replace(pattern, other); });
    text.split(" ").forEach((one) => {
      const labelled = rules.labels.includes(found.at(-1));
      const number = /^[0-9]+$/.test(one) ? one
        : look(rules.numbers, one) || (labelled && look(rules.letterNumbers, one));
      if (number && labelled) found.pop();
      found.push(number || one);
    });
    return found.join("");
  }
  const look = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);
  const unnumbered = (name) => folded(name).replace(numbered, "");
  const withoutOwner = (name) => folded(name).replace(owner, "");
  const spaces = (text) => text.split(" ").length - 1;

  function parts(name) {
    const pieces = folded(name).split(separator), found = new Set([unnumbered(name)]);
    for (let at = 1; at < pieces.length; at += 2) {
      const title = pieces.slice(0, at).join(""), subtitle = pieces.slice(at + 1).join("");
      if (title.includes(" ") || pieces[at].includes(" or")
        || /[a-z][0-9]|[0-9][a-z]/.test(title)) found.add(title);
      if (spaces(subtitle) > 1) found.add(subtitle);
    }
    const own = withoutOwner(name);
    if (spaces(own) > 1 || ENGLISH.includes(article(own))) found.add(own);
    const whole = spelling(name);
    return [...found].map(spelling).filter((part) => part && part !== whole);
  }
  const keys = (title) => new Set(names(title).map((name) =>
    withoutSigns(folded(name).slice(article(name).length))));
  const wordsOf = (name) => new Set(words(name).filter((one) => !ENGLISH.includes(one)));

  function difference(one, other) {
    const both = [article(one), article(other)];
    if (both[0] !== both[1]
      && !(both.includes("") && both.every((a) => !a || ENGLISH.includes(a)))) return null;
    [one, other] = [folded(one), folded(other)];
    if (one === other) return 0;
    [one, other] = [one, other].map((name, i) => name.slice(both[i].length).replace(/^ +| +$/g, ""));
    if (one === other) return ARTICLE;
    return withoutSigns(one) === withoutSigns(other) ? ACCENT : null;
  }

  // --- MovieLens's titles, to be found by name -----------------------------------------------

  const named = ({ title, year, id }) => `'${year ? `${title} (${year})` : title}' (movieId ${id})`;
  const into = (map, key, one) => (map.get(key) || map.set(key, []).get(key)).push(one);

  function titles(data) {
    const moved = new Set(data.moved), byKey = new Map(), byWord = new Map(), bySpelling = new Map();
    const movies = data.films.map((film, row) => {
      const [main, ...others] = names(film.title);
      const movie = { film, id: film.id, main, others, moved: moved.has(row),
        names: [...new Set([film.title, main, ...others])], words: wordsOf(main),
        year: Number(film.year || data.years[film.id]) || null };
      keys(film.title).forEach((key) => into(byKey, key, movie));
      movie.words.forEach((one) => into(byWord, `${movie.year} ${one}`, movie));
      const spelled = new Map(parts(main).map((part) => [part, PART]));
      movie.names.forEach((name) => spelled.set(spelling(name), SPELLING));
      spelled.forEach((step, text) => into(bySpelling, text, [movie, step]));
      return movie;
    });

    function step(name, { film, main, others }) {
      const steps = [film.title, main].map((known) => difference(name, known))
        .filter((s) => s !== null);
      if (steps.length) return Math.min(...steps);
      return names(name).every((part) => [main, ...others].some((known) =>
        difference(part, known) !== null)) ? ALTERNATIVE : null;
    }
    function steps(name) {
      const found = new Map(), own = withoutOwner(name);
      keys(name).forEach((key) => (byKey.get(key) || []).forEach((movie) => {
        const which = step(name, movie);
        if (which !== null) found.set(movie, which);
      }));
      const shorter = new Set([unnumbered(name), own.includes(" ") ? own : ""]);
      shorter.delete("");
      shorter.delete(folded(name));
      [[name, SPELLING], ...[...shorter].map((part) => [part, PART])].forEach(([other, least]) =>
        (bySpelling.get(spelling(other)) || []).forEach(([movie, which]) => {
          if (least !== SPELLING && which !== SPELLING) return;
          found.set(movie, Math.min(found.get(movie) ?? PART, Math.max(which, least)));
        }));
      return found;
    }
    const apart = (year, movie) =>
      year === null || movie.year === null ? Infinity : Math.abs(year - movie.year);

    function candidates(name, year, best, found) {
      const nearer = (a, b) => apart(year, a) - apart(year, b) || found.get(a) - found.get(b)
        || a.id - b.id;
      const same = [...[...best].sort(nearer),
        ...[...found.keys()].filter((movie) => !best.includes(movie)).sort(nearer)];
      const mine = wordsOf(name);
      const years = year === null ? [] : [year - 1, year, year + 1], alike = [];
      const having = [...mine].slice(0, MAX_WORDS).flatMap((one) => years.map((near) =>
        byWord.get(`${near} ${one}`) || []));
      new Set(having.filter((some) => some.length <= COMMON).flat()).forEach((movie) => {
        if (found.has(movie)) return;
        const shared = [...mine].filter((one) => movie.words.has(one)).length;
        if (shared !== mine.size && shared !== movie.words.size) return;
        alike.push([mine.size + movie.words.size - 2 * shared, apart(year, movie), movie]);
      });
      alike.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2].id - b[2].id);
      return [...same, ...alike.map(([, , movie]) => movie)].slice(0, MAX_CANDIDATES);
    }

    function whyNot(name, year, twice, best, found) {
      const choice = candidates(name, year, best, found);
      const because = (reason, some = []) => {
        const first = choice.filter((movie) => some.includes(movie));
        const more = some.length - first.length;
        const listed = first.map(({ film }) => named(film)).join(", ")
          + (more ? ` and ${more} more` : "");
        return { candidates: choice.map(({ film }) => film),
          reason: filled(rules.reasons[reason], [listed]) };
      };
      if (twice) return because("twice");
      if (best.length) {
        const many = new Set(best.map((movie) => found.get(movie))).size > 1;
        return because(many ? "near" : "alike", best);
      }
      const same = [...found.keys()].filter((movie) => found.get(movie) < SPELLING);
      if (!same.length) return because("none");
      return because(year === null ? "no year" : "other year", same);
    }
    return { steps, apart, whyNot };
  }

  /* Each film of an export -> a film of MovieLens and how it was found; or why not, and candidates.
     data: films ({ id, title, year }), moved and years, as book/play.py writes them. */
  const indexed = new WeakMap();
  function match(rows, data) {
    if (!indexed.has(data)) indexed.set(data, titles(data));
    const known = indexed.get(data), times = new Map();
    const key = ({ name, year }) => `${year} ${name}`;
    rows.forEach((row) => times.set(key(row), (times.get(key(row)) || 0) + 1));
    const less = (a, b) => a[0] - b[0] || a[1] - b[1];
    const groups = new Map();
    const found = rows.map(({ name, year, ...rest }, row) => {
      const steps = known.steps(name), twice = times.get(key({ name, year })) > 1;
      const near = [...steps].map(([movie, step]) => ({ movie, score: [known.apart(year, movie), step] }))
        .filter(({ movie, score }) => score[0] === 0 || (score[0] === 1
          && movie.names.some((other) => folded(other) === folded(name))))
        .sort((a, b) => less(a.score, b.score));
      const best = near.filter(({ score }) =>
        near[0].score[1] >= SPELLING || !less(score, near[0].score));
      const one = { name, year, ...rest, row };
      if (best.length !== 1 || twice) {
        return { ...one, ...known.whyNot(name, year, twice, best.map(({ movie }) => movie), steps) };
      }
      Object.assign(one, best[0]);
      into(groups, one.movie, one);
      return one;
    });
    groups.forEach((group, movie) => {
      const nearest = group.map((one) => one.score).reduce((a, b) => (less(b, a) < 0 ? b : a));
      const many = group.filter((one) => !less(one.score, nearest)).length > 1;
      group.forEach((one) => {
        const worse = less(one.score, nearest) > 0;
        if (worse || many) {
          one.reason = filled(rules.reasons[worse ? "better" : "as well"], [named(movie.film)]);
          one.candidates = [movie.film];
        } else {
          one.film = movie.film;
          one.how = HOW[one.score[0] ? YEAR : Math.max(one.score[1], movie.moved ? ARTICLE : 0)];
        }
      });
    });
    return { matched: found.filter((one) => one.film), unmatched: found.filter((one) => !one.film) };
  }

  // --- from bytes to films -------------------------------------------------------------------

  const control = new RegExp(rules.control), controls = new RegExp(rules.control, "g");
  const blanks = new RegExp(`[${rules.blanks}]+`, "g");
  const blank = new Set(rules.blanks);
  function trimmed(text) {
    let from = 0, to = text.length;
    while (from < to && blank.has(text[from])) from++;
    while (from < to && blank.has(text[to - 1])) to--;
    return text.slice(from, to);
  }
  const whole = (pattern) => new RegExp(`^(?:${pattern})$`);
  const isYear = whole(rules.isYear), isDay = whole(rules.isDay), isRating = whole(rules.isRating);

  const count = (number) => number.toLocaleString("en-US");
  const quoted = (text, most = 80) =>
    `'${[...text.replace(blanks, " ").replace(controls, "?")].slice(0, most).join("")}'`;
  function bad(name, what, values = [], line = 0) {
    const [found, expected, advice] = rules.messages[what];
    const said = filled(`found ${found}; expected ${expected}`, values);
    return new Error(`${quoted(name)}${line ? `, line ${line}` : ""}: ${said}. ${advice}`);
  }
  function refuse(name) {
    Object.entries(rules.refused).forEach(([one, reason]) => {
      if (name.toLowerCase().includes(one)) throw bad(name, "refused", [reason]);
    });
  }

  /* The films of a file, each once, in the order of viewing. */
  async function films(file) {
    const name = file.name.split(/[\\/]/).pop() || "the file";
    if (name.toLowerCase().endsWith(".csv")) refuse(name);
    const bytes = new Uint8Array(await file.slice(0, MAX_ARCHIVE + 1).arrayBuffer());
    if (bytes[0] === 0x50 && bytes[1] === 0x4b) return ordered(await members(bytes, name));
    if (name.toLowerCase().endsWith(".zip")) {
      throw bad(name, "no zip");
    }
    refuse(name);
    const { kind, rows } = table(bytes, name);
    if (kind === "watched.csv" && !name.toLowerCase().includes("watched")) {
      throw bad(name, "watchlist");
    }
    return ordered([[kind, rows]]);
  }

  /* The rows of each list of seen films in a zip; nothing else of it is unpacked. */
  async function members(bytes, name) {
    if (bytes.length > MAX_ARCHIVE) {
      throw bad(name, "large archive", [count(MAX_ARCHIVE)]);
    }
    const lists = [];
    for (const [file, member] of wanted(index(bytes, name), name)) {
      const where = `${name}/${file}`;
      lists.push([file, table(await unpacked(bytes, name, member, where), where).rows]);
    }
    return lists;
  }
  const damaged = (name) => bad(name, "damaged");
  const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

  /* What an archive says, at its end, that it holds. */
  function index(bytes, name) {
    const view = viewOf(bytes), found = [];
    let end = bytes.length - 22;
    const least = Math.max(0, end - 65535);
    while (end >= least && !(view.getUint32(end, true) === 0x06054b50
      && view.getUint16(end + 20, true) === bytes.length - end - 22)) end--;
    if (end < least) throw damaged(name);
    const many = view.getUint16(end + 10, true);
    if (many > MAX_MEMBERS) throw bad(name, "members", [count(MAX_MEMBERS)]);
    for (let i = 0, at = view.getUint32(end + 16, true); i < many; i++) {
      if (at + 46 > end || view.getUint32(at, true) !== 0x02014b50) throw damaged(name);
      const lengths = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const file = new TextDecoder("utf-8", { ignoreBOM: true })
        .decode(bytes.subarray(at + 46, at + 46 + lengths[0]));
      const steps = file.replaceAll("\\", "/").split("/");
      if ((steps[0] === "" && steps.length > 1) || steps.includes("..") || steps[0].includes(":")) {
        throw bad(name, "outside", [quoted(file)]);
      }
      found.push({
        name: file, steps,
        flags: view.getUint16(at + 8, true), method: view.getUint16(at + 10, true),
        checksum: view.getUint32(at + 16, true), packed: view.getUint32(at + 20, true),
        size: view.getUint32(at + 24, true), start: view.getUint32(at + 42, true) });
      at += 46 + lengths[0] + lengths[1] + lengths[2];
    }
    return found;
  }

  function wanted(all, name) {
    const found = {};
    all.forEach((member) => {
      const { steps } = member, file = steps.at(-1);
      if (!FILES.includes(file) || steps.length > 2
        || rules.notLists.includes(steps[0].toLowerCase())) return;
      if (found[file]) throw bad(name, "twice", [file]);
      found[file] = member;
    });
    if (!Object.keys(found).length) {
      const inner = all.find((member) => member.name.toLowerCase().endsWith(".zip"));
      throw inner ? bad(name, "archive in it", [quoted(inner.name)]) : bad(name, "no list");
    }
    return FILES.filter((file) => found[file]).map((file) => [file, found[file]]);
  }

  async function unpacked(bytes, name, member, where) {
    if (member.flags & 1) throw bad(where, "password");
    if (member.method !== 0 && member.method !== 8) {
      throw bad(where, "method", [member.method]);
    }
    if (member.size > MAX_FILE) {
      throw bad(where, "unpacked", [count(member.size), count(MAX_FILE)]);
    }
    const view = viewOf(bytes);
    let at = member.start;
    if (at + 30 > bytes.length || view.getUint32(at, true) !== 0x04034b50) throw damaged(name);
    at += 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
    let content = bytes.subarray(at, at + member.packed);
    if (member.method === 8) {
      // Bytes behind the end are damage; not every engine minds, so the last one has to matter.
      content = !await inflated(content.subarray(0, -1), member.size)
        && await inflated(content, member.size);
    }
    if (!content || content.length !== member.size || checksum(content) !== member.checksum) {
      throw damaged(name);
    }
    return content;
  }

  /* What was deflated; null if it is damaged or more than it should be. */
  async function inflated(bytes, size) {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))
      .getReader();
    const content = new Uint8Array(size);
    let at = 0;
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return at === size ? content : null;
        if (at + value.length > size) {
          await reader.cancel();
          return null;
        }
        content.set(value, at);
        at += value.length;
      }
    } catch {
      return null;
    }
  }

  const CRC = Uint32Array.from({ length: 256 }, (_, number) => {
    for (let bit = 0; bit < 8; bit++) number = number & 1 ? 0xedb88320 ^ (number >>> 1) : number >>> 1;
    return number;
  });
  const checksum = (bytes) => ~bytes.reduce((sum, byte) =>
    CRC[(sum ^ byte) & 255] ^ (sum >>> 8), -1) >>> 0;

  const breaks = (text) => (text.match(/\r\n|\r|\n/g) || []).length;

  /* The text of a file, and where it is none. */
  function decoded(bytes, name) {
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch { /* told below */ }
    const fits = (length, stream) => {
      try {
        new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, length), { stream });
        return true;
      } catch {
        return false;
      }
    };
    let good = 0, wrong = bytes.length + 1;
    while (wrong - good > 1) {
      const middle = (good + wrong) >> 1;
      if (fits(middle, true)) good = middle; else wrong = middle;
    }
    if (!fits(good, false)) do good--; while ((bytes[good] & 0xc0) === 0x80);
    const byte = bytes[good].toString(16).padStart(2, "0");
    throw bad(name, "byte", [byte],
      breaks(new TextDecoder().decode(bytes.subarray(0, good))) + 1);
  }

  /* The checked rows of a csv, and which of FILES has its header. */
  function table(bytes, name) {
    if (bytes.length > MAX_FILE) {
      throw bad(name, "large file", [count(MAX_FILE)]);
    }
    if (bytes.length > 3 && viewOf(bytes).getUint32(0, true) === 0x04034b50) {
      throw bad(name, "archive");
    }
    const text = decoded(bytes, name), at = text.search(control);
    if (at >= 0) {
      const code = text.charCodeAt(at).toString(16).padStart(2, "0");
      throw bad(name, "control", [code], breaks(text.slice(0, at)) + 1);
    }
    const many = breaks(text);
    if (many > MAX_ROWS) throw bad(name, "lines", [count(many)]);
    const lines = csv(text, name), [first, header] = lines.next().value || [1, []];
    const kind = kindOf(header, name, first), rows = [];
    for (const [line, fields] of lines) {
      if (fields.length !== header.length) {
        throw bad(name, "fields", [fields.length, header.length], line);
      }
      rows.push(filmOf(new Map(header.map((column, i) => [column, fields[i]])), name, line));
    }
    return { kind, rows };
  }

  const bare = /[^,\r\n]*/y, ending = /,|\r\n|\r|\n|$/y;

  /* The line that a row begins on, and its fields without blanks around; no empty rows. */
  function* csv(text, name) {
    let at = 0, line = 1, begins = 1, fields = [];
    while (at < text.length || fields.length) {
      const from = at, quoted = text[at] === '"';
      if (quoted) {
        do at = text.indexOf('"', at + 1) + 1; while (at && text[at] === '"');
      } else {
        bare.lastIndex = at;
        at += bare.exec(text)[0].length;
      }
      ending.lastIndex = at;
      const end = at || !quoted ? ending.exec(text)?.[0] : undefined;
      const found = text.slice(from, at || from);
      const field = quoted ? found.slice(1, -1).replaceAll('""', '"') : found;
      if (end === undefined || (field.length > MAX_FIELD && [...field].length > MAX_FIELD)) {
        throw bad(name, "row", [], begins);
      }
      fields.push(field);
      line += breaks(found + end);
      at += end.length;
      if (end !== ",") {
        fields = fields.map(trimmed);
        if (fields.length > 1 || fields[0]) yield [begins, fields];
        [fields, begins] = [[], line];
      }
    }
  }

  function kindOf(header, name, line) {
    if (header.includes("Review")) throw bad(name, "reviews");
    const text = quoted(header.join(","));
    if (header.includes("Title") && !header.includes("Name")) {
      throw bad(name, "import", [text], line);
    }
    if (header.length === 1 && header[0].includes(";")) throw bad(name, "semicolons", [text], line);
    ["Date", "Name", "Year", "Rating", "Watched Date", "Letterboxd URI"].forEach((column, i) => {
      const times = header.filter((one) => one === column).length;
      if (times > 1 || (times < 1 && i < 3)) {
        throw bad(name, "columns", [column, times, text], line);
      }
    });
    return FILES[header.includes("Watched Date") ? 0 : header.includes("Rating") ? 2 : 1];
  }

  function filmOf(row, where, line) {
    const name = row.get("Name").replace(blanks, " "), year = row.get("Year");
    const rating = row.get("Rating") || "", length = [...name].length;
    const date = row.get("Watched Date") || row.get("Date");
    if (length < 1 || length > MAX_NAME) throw bad(where, "name", [count(length)], line);
    if (year && !(isYear.test(year) && year >= 1870 && year <= 2100)) {
      throw bad(where, "year", [quoted(year, 20)], line);
    }
    if (rating && !isRating.test(rating)) throw bad(where, "rating", [quoted(rating, 20)], line);
    const when = isDay.test(date) && new Date(`${date}T00:00:00Z`);
    if (!when || Number.isNaN(+when) || when.toISOString().slice(0, 10) !== date
      || date < "1900" || date >= "2101") {
      throw bad(where, "date", [quoted(date, 20)], line);
    }
    return { name, year: Number(year) || null, date, line, rating: rating ? Number(rating) : NaN,
      link: row.get("Letterboxd URI") || "" };
  }

  function ordered(lists) {
    const rows = lists.flatMap(([file, all]) => all.map((row) => ({ ...row, file: FILES.indexOf(file) })));
    const links = new Map();  // of films; those of a diary lead to its entries
    const film = ({ name, year }) => `${year} ${name}`;
    rows.filter((row) => row.file && row.link).forEach((row) => into(links, film(row), row.link));
    links.forEach((all, key) => links.set(key, new Set(all).size));
    const groups = new Map();
    rows.forEach((row) => {
      const link = row.file && links.get(film(row)) > 1 ? row.link : "";
      into(groups, JSON.stringify([film(row), link]), row);
    });
    const later = (a, b) => a.date < b.date ? -1 : a.date > b.date ? 1 : a.line - b.line;
    const last = (all, order) => all.reduce((a, b) => (order(b, a) > 0 ? b : a));
    return [...groups.values()].map((group) => {
      const first = group.reduce((least, row) => Math.min(least, row.file), FILES.length);
      const dated = group.filter((row) => row.file === first);
      const rated = group.filter((row) => !Number.isNaN(row.rating));
      return { ...last(dated, later), viewings: dated.length,
        rating: rated.length ? last(rated, (a, b) => a.file - b.file || later(a, b)).rating : NaN };
    }).sort((a, b) => a.date < b.date ? -1 : a.date > b.date ? 1 : a.file - b.file || a.line - b.line);
  }

  return { films, match };
};
