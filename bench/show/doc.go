// Package show prints reports: for a terminal, as Markdown, and as one HTML page with plots.
//
//	report.go        a report as this package sees it
//	table.go         tables for a terminal
//	markdown.go      the tables of the README
//	against.go       ratios to peers in words
//	comparison.go    a comparison as text and as Markdown
//	html.go          the page: what is on it
//	html_table.go    the page's tables and its headline
//	plot.go          how a plot looks, and its SVG
//	plot_bar.go      plots with bars
//	plot_line.go     plots with lines
//	plot_figures.go  what is plotted, by section
//	plot_ink.go      the colours
//
// Everything printed is computed from the report.
package show
