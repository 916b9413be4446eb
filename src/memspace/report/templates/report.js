(function () {
  "use strict";
  var page = JSON.parse(document.getElementById("data").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var touch = window.matchMedia("(pointer: coarse)").matches;
  var printing = false;
  var list = function (selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); };

  function rgba(hex, alpha) {
    var n = parseInt(hex.slice(1), 16);
    return "rgba(" + (n >> 16) + "," + ((n >> 8) & 255) + "," + (n & 255) + "," + alpha + ")";
  }
  function recolour(trace) {
    var hue = page.palette[dark.matches && !printing ? "dark" : "light"][trace.meta.hue];
    if (trace.line) { trace.line.color = hue; }
    if (trace.marker) { trace.marker.color = hue; }
    if (trace.fillcolor) { trace.fillcolor = rgba(hue, 0.18); }
    if (trace.error_y) { trace.error_y.color = hue; }
  }
  function theme(layout) {
    var style = getComputedStyle(document.documentElement);
    var colour = function (name) { return style.getPropertyValue(name).trim(); };
    var ink = printing ? "#1d1f23" : colour("--ink"), line = printing ? "#dcd9d0" : colour("--line");
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: "system-ui, sans-serif", size: 12, color: ink };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--link") };
    layout.hoverlabel = { bgcolor: colour("--card"), bordercolor: line, font: { color: ink } };
    layout.dragmode = touch ? false : "zoom"; // a finger on a plot scrolls the page
    ["xaxis", "yaxis"].forEach(function (a) {
      layout[a].gridcolor = layout[a].linecolor = layout[a].zerolinecolor = line;
    });
    layout.annotations.forEach(function (a) { a.bgcolor = printing ? "#ffffff" : colour("--card"); });
  }
  // Named one by one: a new version of the library may bring buttons that send data elsewhere.
  var buttons = touch ? ["toImage"] : ["zoom2d", "pan2d", "resetScale2d", "toImage"];
  var options = { responsive: true, displaylogo: false, modeBarButtons: [buttons], plotlyServerURL: "" };
  var plots = list(".plot");
  function draw(el) {
    var f = JSON.parse(JSON.stringify(page.figures[el.dataset.figure]));
    f.data.forEach(recolour);
    theme(f.layout);
    if (f.layout.showlegend && el.clientWidth < 420) { // the legend stacks: keep it clear of the toolbar
      f.layout.margin.t = 44 + 20 * f.data.filter(function (t) { return t.showlegend !== false; }).length;
    }
    Plotly.react(el, f.data, f.layout, options);
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
  function again() { plots.forEach(function (el) { if (el.dataset.drawn) { draw(el); } }); }
  dark.addEventListener("change", again);

  // Paper is light, and shows what is folded away.
  var folded = [];
  window.addEventListener("beforeprint", function () {
    printing = true;
    plots.forEach(draw);
    folded = list("details:not([open])");
    folded.forEach(function (d) { d.open = true; });
  });
  window.addEventListener("afterprint", function () {
    printing = false;
    again();
    folded.forEach(function (d) { d.open = false; });
  });

  // The contents show where the reader is.
  var entries = list("nav a");
  if ("IntersectionObserver" in window) {
    var here = new IntersectionObserver(function (seen) {
      seen.forEach(function (e) {
        if (!e.isIntersecting) { return; }
        entries.forEach(function (a) {
          if (a.getAttribute("href") === "#" + e.target.id) { a.setAttribute("aria-current", "true"); }
          else { a.removeAttribute("aria-current"); }
        });
      });
    }, { rootMargin: "-20% 0px -75% 0px" });
    list("main > section").forEach(function (s) { here.observe(s); });
  }

  var table = document.getElementById("every"), body = table.tBodies[0], count = document.getElementById("count");
  document.getElementById("filter").addEventListener("input", function (e) {
    var words = e.target.value.toLowerCase().split(/\s+/), shown = 0;
    Array.prototype.forEach.call(body.rows, function (row) {
      var text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (w) { return text.indexOf(w) >= 0; });
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = shown + " of " + body.rows.length + " shown";
  });
  list("#every button[data-sort]").forEach(function (button) {
    button.addEventListener("click", function () {
      var k = Number(button.dataset.sort), th = button.parentElement;
      var up = th.getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (c) { c.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      function key(row) {
        var cell = row.cells[k];
        return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : parseFloat(cell.dataset.value);
      }
      Array.prototype.slice.call(body.rows).map(function (row) { return [key(row), row]; }).sort(function (a, b) {
        var x = a[0], y = b[0], lost = (x !== x) - (y !== y); // what is not a number stands last both ways
        return lost || (x > y ? 1 : x < y ? -1 : 0) * (up ? 1 : -1);
      }).forEach(function (pair) { body.appendChild(pair[1]); });
    });
  });
})();
