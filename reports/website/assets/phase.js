// The phase diagram: draws what window.phaseLaw (made from the theory's source) says.
(function () {
  const BOX = { left: 60, top: 14, right: 14, bottom: 44 };

  function start() {
    const canvas = document.getElementById("phase-map");
    if (!canvas || canvas.dataset.ready || !window.phaseLaw) return;
    canvas.dataset.ready = "yes";
    const law = window.phaseLaw;
    const slider = (name) => document.getElementById("phase-" + name);
    const value = (name) => Number(slider(name).value);
    const tRange = [Number(slider("t").min), Number(slider("t").max)];
    const width = canvas.width - BOX.left - BOX.right;
    const height = canvas.height - BOX.top - BOX.bottom;
    const x = (t) => BOX.left + ((t - tRange[0]) / (tRange[1] - tRange[0])) * width;
    const y = (gain) => BOX.top + (1 - gain) * height;

    function draw() {
      const context = canvas.getContext("2d");
      const lora = value("lora");
      const dark = document.body.getAttribute("data-md-color-scheme") === "slate";
      context.clearRect(0, 0, canvas.width, canvas.height);
      const step = 4;
      for (let i = 0; i < width; i += step) {
        for (let j = 0; j < height; j += step) {
          const t = tRange[0] + ((i + step / 2) / width) * (tRange[1] - tRange[0]);
          const gap = law.meanGap(t, 1 - (j + step / 2) / height, lora);
          const strength = Math.min(1, Math.sqrt(Math.abs(gap)));
          context.fillStyle = gap < 0 ? `rgba(33, 102, 172, ${strength})` : `rgba(178, 24, 43, ${strength})`;
          context.fillRect(BOX.left + i, BOX.top + j, Math.min(step, width - i), Math.min(step, height - j));
        }
      }
      const ink = dark ? "#ddd" : "#222";
      context.strokeStyle = "#fff";
      context.lineWidth = 3;
      context.beginPath();
      context.moveTo(x(0.5), y(0));
      context.lineTo(x(0.5), y(1));
      context.moveTo(x(tRange[0]), y(lora));
      context.lineTo(x(tRange[1]), y(lora));
      context.stroke();
      context.fillStyle = ink;
      context.font = "14px sans-serif";
      context.textAlign = "center";
      for (let t = tRange[0]; t <= tRange[1] + 1e-9; t += 0.5) context.fillText(t.toFixed(1), x(t), canvas.height - 26);
      context.fillText("alignment t of the shift", x((tRange[0] + tRange[1]) / 2), canvas.height - 6);
      context.textAlign = "right";
      for (const gain of [0, 0.5, 1]) context.fillText(gain.toFixed(1), BOX.left - 8, y(gain) + 5);
      context.save();
      context.translate(16, y(0.5));
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText("gain of S2FT", 0, 0);
      context.restore();
      context.beginPath();
      context.arc(x(value("t")), y(value("s2ft")), 7, 0, 2 * Math.PI);
      context.fillStyle = "#ffd54f";
      context.fill();
      context.strokeStyle = "#222";
      context.lineWidth = 2;
      context.stroke();
    }

    function tell() {
      const t = value("t"), shift = value("shift");
      const gains = { pretrained: 0, S2FT: value("s2ft"), LoRA: value("lora"), "full tuning, nothing left over": 1 };
      const body = document.querySelector("#phase-risks tbody");
      body.replaceChildren();
      for (const [name, gain] of Object.entries(gains)) {
        const row = body.insertRow();
        for (const cell of [name, (1 - gain).toFixed(4), law.meanRiskOut(t, gain, shift).toFixed(4)]) {
          row.insertCell().textContent = cell;
        }
      }
      const gap = law.meanGap(t, gains.S2FT, gains.LoRA);
      const verdict = document.getElementById("phase-verdict");
      verdict.dataset.gap = String(gap);
      verdict.textContent =
        (Math.abs(gap) < 1e-12 ? "A tie" : gap < 0 ? "S2FT is better" : "LoRA is better") +
        ": the mean of E_o(S2FT) - E_o(LoRA) is " + gap.toFixed(4) + ".";
      for (const name of ["t", "s2ft", "lora", "shift"]) {
        document.getElementById("phase-" + name + "-value").textContent = value(name).toFixed(2);
      }
    }

    function update() {
      draw();
      tell();
    }
    for (const name of ["t", "s2ft", "lora", "shift"]) slider(name).addEventListener("input", update);
    canvas.addEventListener("click", (event) => {
      const area = canvas.getBoundingClientRect();
      const i = ((event.clientX - area.left) / area.width) * canvas.width - BOX.left;
      const j = ((event.clientY - area.top) / area.height) * canvas.height - BOX.top;
      slider("t").value = tRange[0] + (i / width) * (tRange[1] - tRange[0]);
      slider("s2ft").value = 1 - j / height;
      update();
    });
    new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
    update();
  }
  document.addEventListener("DOMContentLoaded", start);
  if (document.readyState !== "loading") start();
})();
