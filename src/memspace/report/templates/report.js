(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("data").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    return { ink: ink, line: line };
  }
  function themed(layout) {
    var c = colours(), out = JSON.parse(JSON.stringify(layout));
    out.paper_bgcolor = out.plot_bgcolor = "rgba(0,0,0,0)";
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: c.line, activecolor: c.ink, orientation: "v" };
    out.font = { family: "system-ui, sans-serif", size: 12, color: c.ink };
    ["xaxis", "yaxis"].forEach(function (a) {
      out[a].gridcolor = out[a].linecolor = out[a].zerolinecolor = c.line;
    });
    return out;
  }
  var options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] };
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  function draw(el) {
    var f = figures[el.dataset.figure];
    Plotly.react(el, f.data, themed(f.layout), options);
    el.dataset.drawn = "yes";
    var ruler = document.getElementById("js-plotly-tester"); // plotly's off-screen text ruler: nothing to read
    if (ruler) { ruler.setAttribute("aria-hidden", "true"); }
  }
  var waiting = "IntersectionObserver" in window ? new IntersectionObserver(function (entries) {
    entries.forEach(function (e) {
      if (e.isIntersecting && !e.target.dataset.drawn) { draw(e.target); waiting.unobserve(e.target); }
    });
  }, { rootMargin: "800px" }) : null;
  plots.forEach(function (el) { if (waiting) { waiting.observe(el); } else { draw(el); } });
  window.drawAll = function () { plots.forEach(function (el) { if (!el.dataset.drawn) { draw(el); } }); };
  window.addEventListener("beforeprint", window.drawAll);
  dark.addEventListener("change", function () {
    plots.forEach(function (el) { if (el.dataset.drawn) { draw(el); } });
  });

  var table = document.getElementById("every"), body = table.tBodies[0];
  document.getElementById("filter").addEventListener("input", function (e) {
    var words = e.target.value.toLowerCase();
    Array.prototype.forEach.call(body.rows, function (row) {
      row.hidden = row.textContent.toLowerCase().indexOf(words) < 0;
    });
  });
  Array.prototype.forEach.call(table.querySelectorAll("button[data-sort]"), function (button) {
    button.addEventListener("click", function () {
      var k = Number(button.dataset.sort), th = button.parentElement;
      var up = th.getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (c) { c.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      function key(row) {
        var cell = row.cells[k];
        return cell.dataset.value !== undefined ? parseFloat(cell.dataset.value) : cell.textContent.trim().toLowerCase();
      }
      Array.prototype.slice.call(body.rows).sort(function (a, b) {
        var x = key(a), y = key(b);
        return (x > y ? 1 : x < y ? -1 : 0) * (up ? 1 : -1);
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
})();
