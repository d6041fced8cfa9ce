// The catalogue's filter: hides the rows, and the families without rows, that do not match.
(function () {
  var form = document.querySelector("form.filter");
  if (!form) return;
  var rows = Array.from(document.querySelectorAll("table.catalogue tbody tr")).map(function (row) {
    return { row: row, text: row.textContent.toLowerCase() };
  });
  var tables = Array.from(document.querySelectorAll("table.catalogue"));

  function heading(table) {
    var above = (table.closest(".md-typeset__scrollwrap") || table).previousElementSibling;
    return above && above.tagName === "H2" ? above : null;
  }

  function show() {
    var words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    var level = form.elements.level.value, verdict = form.elements.verdict.value, shown = 0;
    rows.forEach(function (held) {
      var fits = words.every(function (word) { return held.text.includes(word); }) &&
        (!level || held.row.dataset.level === level) && (!verdict || held.row.dataset.verdict === verdict);
      held.row.hidden = !fits;
      shown += fits;
    });
    tables.forEach(function (table) {
      var empty = !table.querySelector("tbody tr:not([hidden])"), above = heading(table);
      table.hidden = empty;
      if (above) above.hidden = empty;
    });
    form.querySelector("output").textContent = shown + " of " + rows.length;
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  show();
})();
