package gateway

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// registerMetrics adds ours to those of a configuration: they count for the process, so that
// a reload sets none of them back.
func registerMetrics(registry *prometheus.Registry) error {
	counter := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) })
	}
	closedFor := func(header string, closed *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "gateway_proxy_protocol_closed_total",
			Help:        "Connections whose PROXY header is missing, or unexpected as they are no load balancer's.",
			ConstLabels: prometheus.Labels{"header": header},
		}, func() float64 { return float64(closed.Load()) })
	}
	return errors.Join(
		registry.Register(&process.queues),
		registry.Register(queueSeconds),
		registry.Register(counter("gateway_records_by_guard_total",
			"Records that the access log did not carry to the journal, and the guard wrote.",
			process.records.byGuard.Load)),
		registry.Register(closedFor("missing", &proxyHeaderMissing)),
		registry.Register(closedFor("unexpected", &proxyHeaderUnexpected)),
		registry.Register(counter("gateway_backend_retries_total",
			"Requests that went to another backend, since the first was away or busy.",
			process.retried.Load)),
		registry.Register(counter("gateway_prompts_lost_total",
			"Prompts and answers, or pieces of them, that could not be kept.", process.vault.Lost)),
		registry.Register(counter("gateway_journal_foreign_lines_total",
			"Lines that came to the journal and are no records.", process.records.foreign.Load)),
		registry.Register(counter("gateway_journal_reopened_total",
			"Times that the journal was moved, removed or cut.",
			func() uint64 { return process.journalNow().Reopened })),
		registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gateway_journal_open", Help: "Whether the journal can be written: 0 refuses every request.",
		}, func() float64 {
			if process.isOpen() {
				return 1
			}
			return 0
		})),
	)
}
