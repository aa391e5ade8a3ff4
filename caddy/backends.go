package gateway

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// fail counts a request that a backend did not answer, or whose answer was an error or stopped.
func (q *queues) fail(backend string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if line := q.of[backend]; line != nil {
		line.failed++
	}
}

// backendState is what a backend has to do, as the control socket shows it.
type backendState struct {
	Name     string `json:"name"`
	InFlight int    `json:"in_flight"`
	Waiting  int    `json:"waiting"`
	Failures uint64 `json:"failures"` // since Caddy started
}

// list returns the state of every backend that was granted since Caddy started, by name.
func (q *queues) list() []backendState {
	q.mu.Lock()
	defer q.mu.Unlock()
	found := make([]backendState, 0, len(q.of))
	for name, line := range q.of {
		found = append(found, backendState{name, line.running, line.waiting(), line.failed})
	}
	slices.SortFunc(found, func(a, b backendState) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// queueSeconds is how long requests waited for a slot, those that left without one too.
var queueSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
	Name: "gateway_queue_seconds", Help: "How long requests waited for a slot of a backend.",
	Buckets: []float64{.05, .2, 1, 5, 15, 30, 60},
})

// Descriptions of what Collect sends.
var (
	runningDesc = prometheus.NewDesc("gateway_backend_requests", "Requests that a backend works on.",
		[]string{"backend"}, nil)
	waitingDesc = prometheus.NewDesc("gateway_backend_waiting", "Requests that wait for a slot of a backend.",
		[]string{"backend"}, nil)
	failedDesc = prometheus.NewDesc("gateway_backend_failures_total",
		"Requests that a backend did not answer, answered with a fault of its own, or stopped to.",
		[]string{"backend"}, nil)
)

// Describe sends the descriptions of the metrics.
func (q *queues) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- runningDesc
	descriptions <- waitingDesc
	descriptions <- failedDesc
}

// Collect sends the metrics.
func (q *queues) Collect(metrics chan<- prometheus.Metric) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for backend, line := range q.of {
		metrics <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(line.running), backend)
		metrics <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(line.waiting()), backend)
		metrics <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(line.failed), backend)
	}
}

// Interface guard.
var _ prometheus.Collector = (*queues)(nil)
