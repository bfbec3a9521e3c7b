/* SPDX-License-Identifier: MIT */
/* Files that are built in as text, each ended by a zero; made by scripts/embed.sh. */
#ifndef CLI_BENCH_EMBEDDED_H
#define CLI_BENCH_EMBEDDED_H

extern const char embedded_style[]; /* report.css */
extern const char embedded_plots[]; /* report.js */
extern const char embedded_chart[]; /* Chart.js, or empty where it was not there */

#endif
