// What a reader sees of the page: run in the browser, the result is a struct of the test.
(() => {
const r = {
	Width: innerWidth, ScrollWidth: document.documentElement.scrollWidth,
	Outside: [], Escaped: [], Overlaps: [], Pale: [], Checked: 0, Texts: 0, SmallestText: 1e9,
};
const count = s => document.querySelectorAll(s).length;
r.Plots = count('.plot');
r.Figures = count('figure');
r.Results = count('table.results tr.result');
r.Failed = count('table.results tr.result td.failed');
r.Errors = count('table.results tr.errors');
r.Targets = count('table.targets tbody tr');
r.Ahead = count('table.ahead tbody tr');
r.Programs = count('table.programs tbody tr');

for (const plot of document.querySelectorAll('.plot')) {
	const box = plot.getBoundingClientRect();
	const name = plot.closest('figure').querySelector('figcaption').textContent;
	if (box.width < 100 || box.height < 40 || box.left < 0 || box.right > innerWidth + 0.5)
		r.Outside.push(name + ' ' + JSON.stringify(box));
	const scale = plot.viewBox ? box.width / plot.viewBox.baseVal.width : 1;
	const texts = [...plot.querySelectorAll('text, span:not(.track)')].map(t => ({t, b: t.getBoundingClientRect()}));
	texts.forEach(({t, b}, i) => {
		r.Texts++;
		const size = parseFloat(getComputedStyle(t).fontSize) * scale;
		r.SmallestText = Math.min(r.SmallestText, size);
		if (b.left < box.left - 1 || b.right > box.right + 1 ||
			b.top < box.top - 1 || b.bottom > box.bottom + 1)
			r.Escaped.push(name + ': ' + t.textContent);
		for (const {t: u, b: c} of texts.slice(i + 1)) {
			const x = Math.min(b.right, c.right) - Math.max(b.left, c.left);
			const y = Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top);
			if (x > 1.5 * scale && y > 2.5 * scale)
				r.Overlaps.push(name + ': ' + t.textContent + ' / ' + u.textContent);
		}
	});
}

// Contrast is that of WCAG 2: 4.5 to 1, for large text 3 to 1.
const rgb = s => {
	const m = s.match(/[\d.]+/g).map(Number);
	return m.length < 4 ? [...m, 1] : m;
};
const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
const behind = e => {
	for (; e; e = e.parentElement) {
		const c = rgb(getComputedStyle(e).backgroundColor);
		if (c[3] === 1) return c;
	}
	return [255, 255, 255, 1];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n = walker.nextNode(); n; n = walker.nextNode()) {
	const e = n.parentElement;
	if (!n.textContent.trim() || ['SCRIPT', 'title', 'desc'].includes(e.tagName)) continue;
	const style = getComputedStyle(e), size = parseFloat(style.fontSize);
	const a = light(rgb(e instanceof SVGElement ? style.fill : style.color)), b = light(behind(e));
	const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
	r.Checked++;
	if (contrast < (size >= 24 ? 3 : 4.5))
		r.Pale.push(n.textContent.trim() + ': ' + contrast.toFixed(2));
}
r.Background = getComputedStyle(document.body).backgroundColor;
return r;
})()
