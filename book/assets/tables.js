/* Makes tables of class nbrec-sortable sortable by a click on a heading, and adds a box that
   filters their rows. Without this script they are plain tables. */
(() => {
  const text = (cell) => cell.textContent.replace(/\s+/g, " ").trim();

  // "0.1753 ± 0.0105", "17.5%", "−0.02", "12,839" -> the number in front; "–" and "" -> null.
  function number(words) {
    const plain = words.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1");
    const found = plain.match(/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i);
    return found ? Number(found[0]) : null;
  }
  const empty = (words) => words === "" || words === "–";

  // A heading that spans rows is repeated in each of them, so that rows can move alone.
  function repeatHeadings(rows) {
    rows.forEach((row, i) => [...row.cells].forEach((cell) => {
      const span = cell.rowSpan;
      cell.rowSpan = 1;
      for (let k = 1; k < span; k++) {
        const copy = cell.cloneNode(true);
        copy.removeAttribute("id");
        rows[i + k].insertBefore(copy, rows[i + k].cells[cell.cellIndex] || null);
      }
    }));
  }

  // For each column the lowest heading with words in it that stands above it alone.
  function headings(head) {
    const grid = [];
    [...head.rows].forEach((row, r) => {
      let column = 0;
      grid[r] = grid[r] || [];
      [...row.cells].forEach((cell) => {
        while (grid[r][column]) column++;
        for (let y = r; y < Math.min(r + cell.rowSpan, head.rows.length); y++)
          for (let x = 0; x < cell.colSpan; x++) (grid[y] = grid[y] || [])[column + x] = cell;
        column += cell.colSpan;
      });
    });
    const width = Math.max(...grid.map((row) => row.length));
    return Array.from({ length: width }, (_, c) => {
      const alone = grid.map((row) => row[c]).reverse().filter((cell) => cell?.colSpan === 1);
      return alone.find((cell) => text(cell)) || alone[0];
    });
  }

  function order(rows, column, direction) {
    const keyed = rows.map((row) => [row, text(row.cells[column])]);
    const filled = keyed.filter(([, words]) => !empty(words));
    const numeric = filled.every(([, words]) => number(words) !== null);
    const compare = numeric ? (a, b) => number(a) - number(b)
      : (a, b) => a.localeCompare(b, undefined, { numeric: true });
    filled.sort((a, b) => direction * compare(a[1], b[1]));
    return [...filled, ...keyed.filter(([, words]) => empty(words))].map(([row]) => row);
  }

  function upgrade(table, index) {
    const body = table.tBodies[0];
    const rows = body ? [...body.rows] : [];
    if (rows.length < 2 || !table.tHead) return;
    repeatHeadings(rows);
    const heads = headings(table.tHead);
    heads.forEach((head, column) => {
      if (!head) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (!text(button)) button.setAttribute("aria-label", `sort by heading ${column + 1}`);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {  // ascending, descending, as it was
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        const now = next[head.getAttribute("aria-sort")];
        heads.forEach((other) => other && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", now);
        body.append(...(now === "none" ? rows : order(rows, column, now === "ascending" ? 1 : -1)));
      });
    });
    const bar = document.createElement("div");
    bar.className = "nbrec-filter";
    bar.innerHTML = `<label>Filter rows <input type="search" id="nbrec-filter-${index}"></label>
      <output for="nbrec-filter-${index}"></output>`;
    const [box, count] = [bar.querySelector("input"), bar.querySelector("output")];
    const filter = () => {  // a row stays if it holds every word
      const words = box.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => {
        const whole = [...row.cells].map(text).join(" ").toLowerCase();
        row.hidden = !words.every((word) => whole.includes(word));
      });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    box.addEventListener("input", filter);
    table.before(bar);
    filter();
  }

  document.addEventListener("DOMContentLoaded", () => document
    .querySelectorAll("table.nbrec-sortable").forEach(upgrade));
})();
