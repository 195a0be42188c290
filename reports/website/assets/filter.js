// Filters of the page of all verdicts.
(function () {
  function start() {
    const form = document.getElementById("verdict-filters");
    if (!form || form.dataset.ready) return;
    form.dataset.ready = "yes";
    const rows = Array.from(document.querySelectorAll("#verdicts tbody tr"));
    const count = document.getElementById("verdict-count");
    function apply() {
      const word = form.elements.word.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const chosen = ["paper", "status", "defect"].every(
          (name) => !form.elements[name].value || row.dataset[name] === form.elements[name].value
        );
        const fits = chosen && (!word || row.textContent.toLowerCase().includes(word));
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      count.value = shown + " of " + rows.length + " readings";
    }
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply(); // a browser may have kept the choices of an earlier visit
  }
  document.addEventListener("DOMContentLoaded", start);
  if (document.readyState !== "loading") start();
})();
