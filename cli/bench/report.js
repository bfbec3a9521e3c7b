// SPDX-License-Identifier: MIT
//
// Draws the plots of a report of cow bench: a canvas for each, out of the rows that name it. A plot
// without a label for x has bars, one for each row; else lines, one for each series. Thin strokes
// reach from the smallest to the largest sample.
"use strict";
(() => {
	const documents = JSON.parse(document.getElementById("data").textContent);
	const figures = document.querySelectorAll("figure.plot");

	if (typeof Chart === "undefined") {
		figures.forEach((figure) => figure.remove());
		return;
	}

	const colour = (name) =>
		getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	const palette = ["#3b82c4", "#d9822b", "#3d9970", "#b5569c", "#8a8f98", "#c9a227"];

	const scaled = (value, units, step) => {
		let unit = 0;

		while (Math.abs(value) >= step * 0.9995 && unit + 1 < units.length) {
			value /= step;
			unit++;
		}
		return `${Number(value.toPrecision(3))} ${units[unit]}`;
	};
	const human = (value, unit) => {
		if (value === null || value === undefined)
			return "-";
		if (unit === "ns")
			return scaled(value, ["ns", "us", "ms", "s"], 1000);
		if (unit === "bytes")
			return scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);
		const text = Number(value.toPrecision(3)).toLocaleString("en");
		return { ratio: `${text} x`, percent: `${text} %`, "per second": `${text}/s` }[unit] || text;
	};

	const strokes = {
		id: "strokes",
		afterDatasetsDraw(chart) {
			const { ctx } = chart;

			ctx.save();
			ctx.strokeStyle = colour("--ink");
			ctx.lineWidth = 1;
			chart.data.datasets.forEach((dataset, i) => {
				const horizontal = chart.options.indexAxis === "y";
				const axis = horizontal ? chart.scales.x : chart.scales.y;

				chart.getDatasetMeta(i).data.forEach((element, j) => {
					const row = dataset.rows[j];

					if (!row || !(row.n > 1) || !chart.isDatasetVisible(i))
						return;
					const low = axis.getPixelForValue(Math.max(row.min, axis.min));
					const high = axis.getPixelForValue(row.max);
					ctx.beginPath();
					if (horizontal) {
						ctx.moveTo(low, element.y);
						ctx.lineTo(high, element.y);
					} else {
						ctx.moveTo(element.x, low);
						ctx.lineTo(element.x, high);
					}
					ctx.stroke();
				});
			});
			ctx.restore();
		},
	};

	const rows_of = (entry, experiment, plot) => {
		const found = (entry.document.experiments || []).find((e) => e.name === experiment);

		return found ? found.rows.filter((r) => r.plot === plot.name && r.n > 0) : [];
	};
	const plot_of = (experiment, name) => {
		for (const entry of documents)
			for (const found of entry.document.experiments || [])
				if (found.name === experiment)
					for (const plot of found.plots || [])
						if (plot.name === name)
							return plot;
		return null;
	};
	const several = documents.length > 1;

	// A bar for each row, a colour for each document.
	const bars = (experiment, plot) => {
		const keys = [];
		const labels = [];

		documents.forEach((entry) => rows_of(entry, experiment, plot).forEach((row) => {
			if (!keys.includes(row.key)) {
				keys.push(row.key);
				labels.push(row.label);
			}
		}));
		const datasets = documents.map((entry, i) => {
			const rows = rows_of(entry, experiment, plot);
			const ordered = keys.map((key) => rows.find((row) => row.key === key) || null);

			return {
				label: entry.label,
				rows: ordered,
				data: ordered.map((row) => row && row.median),
				backgroundColor: palette[i % palette.length],
			};
		});
		return { labels, datasets };
	};

	// A line for each series of each document.
	const lines = (experiment, plot) => {
		const datasets = [];

		documents.forEach((entry, i) => {
			const rows = rows_of(entry, experiment, plot);
			const names = [...new Set(rows.map((row) => row.series))];

			names.forEach((name, j) => {
				const own = rows.filter((row) => row.series === name)
					.sort((a, b) => a.x - b.x);

				datasets.push({
					label: several ? `${name || ""} (${entry.label})` : name || entry.label,
					rows: own,
					data: own.map((row) => ({ x: row.x, y: row.median })),
					borderColor: palette[j % palette.length],
					backgroundColor: palette[j % palette.length],
					borderDash: i ? [6 - i, 3] : [],
					borderWidth: 2,
					pointRadius: 3,
				});
			});
		});
		return { datasets };
	};

	// Of a logarithmic axis: powers of ten, and 2 and 5 where there is room.
	const is_round = (value) => /^[125]0*(e.*)?$/.test(String(value).replace(/^0\.0*/, ""));
	// Bytes are counted in powers of two.
	const binary_ticks = (scale, log) => {
		const low = log ? Math.floor(Math.log2(Math.max(scale.min, 1))) : 0;
		const step = log ?
			2 ** Math.ceil((Math.log2(scale.max) - low) / 7) :
			2 ** Math.ceil(Math.log2(scale.max / 6));
		const ticks = [];

		for (let value = log ? 2 ** low : 0; value <= scale.max && ticks.length < 12;
			value = log ? value * step : value + step)
			if (value >= scale.min)
				ticks.push({ value });
		return ticks;
	};
	const axis = (title, unit, log) => ({
		afterBuildTicks: (scale) => {
			if (unit === "bytes")
				scale.ticks = binary_ticks(scale, log);
		},
		type: log ? "logarithmic" : "linear",
		beginAtZero: !log,
		title: { display: Boolean(title), text: title || "" },
		grid: { color: colour("--line") },
		ticks: {
			maxRotation: 0,
			autoSkipPadding: 12,
			maxTicksLimit: 8,
			callback: (value) => (log && unit !== "bytes" && !is_round(value) ? null : human(value, unit)),
		},
	});

	const word_wrap = (text, width) => {
		const result = [""];

		String(text).split(" ").forEach((word) => {
			const last = result[result.length - 1];

			if (last && last.length + word.length + 1 > width)
				result.push(word);
			else
				result[result.length - 1] = last ? `${last} ${word}` : word;
		});
		return result;
	};

	const draw = (figure) => {
		const { experiment } = figure.dataset;
		const plot = plot_of(experiment, figure.dataset.plot);
		const is_bars = plot && plot.x_label === null;
		const data = plot && (is_bars ? bars(experiment, plot) : lines(experiment, plot));
		const rows = data ? data.datasets.flatMap((set) => set.rows).filter(Boolean) : [];

		if (!rows.length) {
			figure.remove();
			return;
		}
		const box = figure.querySelector("div");
		const unit = rows[0].unit;
		const measured = axis(unit === "ns" || unit === "bytes" ? "" : plot.y_label, unit,
			plot.log_y);
		const narrow = box.clientWidth < 480;

		if (is_bars)
			data.labels = data.labels.map((label) => word_wrap(label, narrow ? 20 : 44));
		box.style.height = is_bars ?
			`${60 + data.labels.reduce((sum, label) => sum + 12 + 14 * Math.max(label.length,
				documents.length), 0)}px` : "320px";
		figure.querySelector("canvas").setAttribute("aria-label", plot.title);
		new Chart(figure.querySelector("canvas"), {
			type: is_bars ? "bar" : "line",
			data,
			plugins: [strokes],
			options: {
				indexAxis: is_bars ? "y" : "x",
				maintainAspectRatio: false,
				animation: false,
				color: colour("--ink"),
				scales: is_bars ?
					{ x: measured, y: { grid: { display: false },
						ticks: { color: colour("--ink"), autoSkip: false } } } :
					{ x: axis(plot.x_label, plot.x_unit || "", plot.log_x), y: measured },
				plugins: {
					legend: { display: !is_bars || several, position: "bottom" },
					tooltip: {
						callbacks: {
							label: (item) => {
								const row = item.dataset.rows[item.dataIndex];
								const spread = row.n > 1 ?
									` (${human(row.min, unit)} .. ${human(row.max, unit)})` : "";

								return `${item.dataset.label}: ${human(row.median, unit)}${spread}`;
							},
						},
					},
				},
			},
		});
	};

	// index.html#plot=fork-size/latency shows that plot alone, for a picture of it.
	const [, alone, name] = location.hash.match(/^#plot=([\w-]+)\/([\w-]+)$/) || [];

	if (alone) {
		document.querySelectorAll("header, section > :not(figure), section").forEach((element) => {
			element.hidden = element.id !== alone;
		});
		figures.forEach((figure) => {
			figure.hidden = figure.dataset.experiment !== alone || figure.dataset.plot !== name;
		});
	}

	let charts_drawn = false;
	const draw_all = () => {
		Chart.defaults.color = colour("--dim");
		Chart.defaults.font.family = "system-ui, sans-serif";
		document.querySelectorAll("figure.plot").forEach((figure) => {
			const old = Chart.getChart(figure.querySelector("canvas"));

			if (old)
				old.destroy();
			draw(figure);
		});
		charts_drawn = true;
		document.documentElement.dataset.plots = String(document.querySelectorAll("figure.plot").length);
	};

	draw_all();
	// Colours follow the reader's choice while the page is open.
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts_drawn && draw_all());
})();
