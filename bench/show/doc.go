// Package show prints reports: for a terminal, as Markdown, and as one HTML page with plots.
//
//	report.go        a report as this package sees it
//	numbers.go       numbers as text
//	table.go         tables for a terminal
//	markdown.go      Markdown tables, and a block between markers
//	results.go       bench/RESULTS.md
//	summary.go       the summary in the README of the project
//	against.go       ratios to peers in words
//	comparison.go    a comparison as text and as Markdown
//	page.go          the page: what is on it (page.html.tmpl, page.css, colours.css)
//	page_tables.go   its headline, and the tables of its sections
//	metrics.go       the figures of a sample, for columns and plots
//	figures.go       what is plotted, by section
//	bars.go          plots with bars, which are HTML
//	lines.go         plots with lines, which are SVG
//	looks.go         the colour, mark and dash of each server
//
// Everything printed is computed from the report.
package show
