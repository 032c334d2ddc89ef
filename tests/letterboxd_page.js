/* What book/assets/letterboxd.js makes of files, for test_letterboxd.py.

   In: { script, data, files: [{ name, content (base64) }] } as JSON, then for each file out: one
   line of JSON with films, matched and unmatched, or with refused. */
const { readFileSync } = require("node:fs");
const vm = require("node:vm");

async function answer({ match, films }, data, { name, content }) {
  const file = Object.assign(new Blob([Buffer.from(content, "base64")]), { name });
  const began = performance.now();
  try {
    const rows = await films(file), { matched, unmatched } = match(rows, data);
    const shown = ({ name: film, year, date, rating, viewings }) =>
      [film, year, date, Number.isNaN(rating) ? null : rating, viewings];
    return { films: rows.map(shown),
      matched: matched.map((one) => [one.row, one.film.id, one.how]),
      unmatched: unmatched.map((one) => [one.row, one.reason, one.candidates.map(({ id }) => id)]),
      milliseconds: performance.now() - began };
  } catch (error) {
    return { refused: error.message };
  }
}

(async () => {
  const { script, data, files } = JSON.parse(readFileSync(0, "utf-8"));
  globalThis.window = globalThis;
  vm.runInThisContext(script);
  const reader = window.nbrecLetterboxd(data.letterboxd);
  for (const file of files) console.log(JSON.stringify(await answer(reader, data, file)));
})();
