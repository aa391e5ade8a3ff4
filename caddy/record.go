package gateway

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap/zapcore"
)

// record is an exchange as the journal keeps it: one object on Caddy's access-log entry, in
// the order of testdata/contract/record.json. Metering bills from it, so every field is
// there in every record, null where it is not known.
type record struct {
	*exchange

	seq      uint64 // of the lines of this boot, without a gap: a missing one is a lost line
	duration time.Duration

	// What became of it on its way to the journal.
	log       accessLog
	isEncoded atomic.Bool // some log has written it
	isClaimed bool        // it is being written to the journal; of uncarried alone
	isOverdue bool        // a look has found it too old; likewise
	foreign   uint64      // lines without a record that had come to the journal before it
}

// newRecord takes the next number of the journal, and the time until now.
func newRecord(x *exchange, log accessLog) *record {
	r := &record{exchange: x, duration: process.clock.now().Sub(x.start), log: log}
	process.records.enter(r, &process.seq)
	return r
}

// ended is when the exchange did.
func (x *record) ended() time.Time { return x.start.Add(x.duration) }

// MarshalLogObject writes the fields for a log.
func (x *record) MarshalLogObject(e zapcore.ObjectEncoder) error {
	x.isEncoded.Store(true)
	return x.encode(e)
}

// encode writes the fields.
func (x *record) encode(e zapcore.ObjectEncoder) error {
	e.AddInt("v", version)
	e.AddString("id", x.id)
	e.AddString("node", process.node)
	e.AddString("boot", process.boot)
	e.AddUint64("seq", x.seq)
	addOptional(e, "trace_id", x.trace)
	e.AddString("ip", x.ip)
	addOptional(e, "end_user", x.endUser())
	addOptional(e, "lookup", x.lookup())
	addOptional(e, "tenant", x.tenant)
	addOptional(e, "key", x.keyID)
	e.AddString("method", x.method)
	e.AddString("path", x.path)
	addOptional(e, "model", x.model())
	addOptional(e, "model_asked", x.alias()) // null unless the client asked for the model by another name
	x.addResult(e)
	x.addTerms(e)
	x.addUsage(e)
	x.addPrompt(e)
	x.addTimes(e)
	return nil
}

// addResult writes where the request went and what became of it.
func (x *record) addResult(e zapcore.ObjectEncoder) {
	var backend *string // null unless the request went on to it
	if x.grant != nil && !x.attempts.outAt.IsZero() {
		name := x.backend()
		backend = &name
	}
	addOptional(e, "backend", backend)
	addOptional(e, "tried", optional(x.attempts.tried)) // null unless another was asked before
	e.AddBool("sent", x.attempts.isSent.Load())
	addOptional(e, "stream", x.request.stream)
	e.AddString("outcome", string(x.outcome))
	addOptional(e, "reason", optional(string(x.reason)))
	e.AddInt("status", x.status)
	addOptional(e, "upstream_status", optional(x.upstreamStatus))
}

// addTerms writes what authz granted, null without a Grant.
func (x *record) addTerms(e zapcore.ObjectEncoder) {
	g := x.grant
	if g == nil {
		g = &grant{}
	}
	addOptional(e, "reserved", g.Reserved)
	addOptional(e, "ceiling", g.Ceiling)
	addOptional(e, "windows", g.Windows)
	addOptional(e, "max_output", g.MaxOutput)
	e.AddBool("cold", g.Cold)
}

// MarshalLogObject writes the fields, here and below without reflection: every record has them.
func (t tokens) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt64("input", t.Input)
	e.AddInt64("output", t.Output)
	return nil
}

// MarshalLogObject writes the fields.
func (w windows) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("day", w.Day)
	e.AddString("month", w.Month)
	return nil
}

// addUsage writes what the answer reports of itself, and what was counted in it.
func (x *record) addUsage(e zapcore.ObjectEncoder) {
	u := x.answered()
	e.AddBool("terminal", u.terminal)
	addOptional(e, "input_tokens", u.input.pointer())
	addOptional(e, "output_tokens", u.output.pointer())
	addOptional(e, "cached_tokens", u.cached.pointer())
	e.AddInt64("deltas", u.deltas)
	e.AddInt64("text_bytes", u.textBytes)
	e.AddInt64("tool_bytes", u.toolBytes)
	e.AddInt64("output_bytes", u.textBytes+u.toolBytes)
}

// addPrompt writes what the guard knows of the prompt: the bound is that of the model by whose
// table it costs most, null without a table.
func (x *record) addPrompt(e zapcore.ObjectEncoder) {
	p := x.request.prompt
	e.AddInt64("prompt_bytes", int64(p.bytes))
	var bound *int64
	var table *string
	for digest, n := range p.bounds {
		if digest != boundOfAny && (bound == nil || n > *bound) {
			bound, table = &n, &digest
		}
	}
	addOptional(e, "bound", bound)
	addOptional(e, "table", table)
	e.AddInt64("messages", int64(p.messages))
	e.AddInt64("tools", int64(p.tools))
	e.AddInt64("images", int64(p.images))
}

// addTimes writes milliseconds: ours, and those that the backend reports.
func (x *record) addTimes(e zapcore.ObjectEncoder) {
	var ttft *int64
	if !x.firstContent.IsZero() {
		ms := x.firstContent.Sub(x.start).Milliseconds()
		ttft = &ms
	}
	addOptional(e, "ttft_ms", ttft)
	e.AddInt64("duration_ms", x.duration.Milliseconds())
	e.AddInt64("waited_ms", x.waited().Milliseconds())
	addOptional(e, "stream_ms", x.streamTime())
	u := x.answered()
	addOptional(e, "load_ms", u.load.milliseconds())
	addOptional(e, "prompt_eval_ms", u.promptEval.milliseconds())
	addOptional(e, "eval_ms", u.eval.milliseconds())
}

// waited returns how long no backend had the request: for its body, for authz, for a slot.
func (x *record) waited() time.Duration {
	if x.attempts.outAt.IsZero() {
		return x.duration
	}
	return x.attempts.outAt.Sub(x.start)
}

// streamTime returns how long the backend took from the first content to the last, in
// milliseconds; nil unless a stream had both.
func (x *record) streamTime() *int64 {
	if x.usage == nil || !x.usage.isStream || x.usage.deltas < 2 || x.firstContent.IsZero() {
		return nil
	}
	ms := max(0, x.lastContent.Sub(x.firstContent)-x.blocked).Milliseconds()
	return &ms
}

// answered returns the usage, an empty one if no backend answered.
func (x *record) answered() *usage {
	if x.usage == nil {
		return &usage{}
	}
	return x.usage
}

// addOptional writes a value, or null for nil.
func addOptional[T any](e zapcore.ObjectEncoder, name string, value *T) {
	if value == nil {
		_ = e.AddReflected(name, nil)
		return
	}
	switch v := any(*value).(type) {
	case string:
		e.AddString(name, v)
	case int:
		e.AddInt(name, v)
	case int64:
		e.AddInt64(name, v)
	case bool:
		e.AddBool(name, v)
	case zapcore.ObjectMarshaler:
		_ = e.AddObject(name, v)
	default:
		_ = e.AddReflected(name, v)
	}
}

// optional returns nil for a zero value.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
