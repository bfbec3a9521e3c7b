// libjs-chart.js was not there when this was built: no plots.
