package gateway

import (
	"time"

	"go.uber.org/zap/zapcore"
)

// record is the exchange as the journal keeps it.
func (x *exchange) record() zapcore.ObjectMarshalerFunc {
	seq := process.seq.Add(1)
	duration := process.clock.now().Sub(x.start)
	return func(e zapcore.ObjectEncoder) error {
		e.AddInt("v", version)
		e.AddString("id", x.id)
		e.AddString("node", process.node)
		e.AddString("boot", process.boot)
		e.AddUint64("seq", seq)
		e.AddString("ip", x.ip)
		addOptional(e, "lookup", x.lookup())
		addOptional(e, "tenant", x.tenant)
		addOptional(e, "key", x.keyID)
		e.AddString("method", x.method)
		e.AddString("path", concealed(x.path))
		addOptional(e, "model", x.model())
		x.addGrant(e)
		e.AddInt64("prompt_bytes", int64(x.request.prompt.bytes))
		e.AddInt64("images", int64(x.request.prompt.images))
		x.addTimes(e, duration)
		return nil
	}
}

func (x *exchange) addGrant(e zapcore.ObjectEncoder) {
	var backend *string // null unless the request went on to it
	g := x.grant
	if g != nil && x.phase == phaseBackend {
		backend = &g.Backends[0]
	}
	addOptional(e, "backend", backend)
	addOptional(e, "stream", x.request.stream)
	e.AddString("outcome", x.outcome)
	addOptional(e, "reason", optional(x.reason))
	e.AddInt("status", x.status)
	addOptional(e, "upstream_status", optional(x.upstreamStatus))
	if g == nil {
		g = &grant{}
	}
	addOptional(e, "reserved", g.Reserved)
	addOptional(e, "windows", g.Windows)
	addOptional(e, "max_output", g.MaxOutput)
	u := x.usage
	if u == nil {
		u = &usage{}
	}
	e.AddBool("terminal", u.terminal)
	addOptional(e, "input_tokens", u.input.pointer())
	addOptional(e, "output_tokens", u.output.pointer())
	addOptional(e, "cached_tokens", u.cached.pointer())
	e.AddInt64("deltas", u.deltas)
	e.AddInt64("output_bytes", u.outputBytes)
}

func (x *exchange) addTimes(e zapcore.ObjectEncoder, duration time.Duration) {
	var ttft *int64
	if !x.firstContent.IsZero() {
		ms := x.firstContent.Sub(x.start).Milliseconds()
		ttft = &ms
	}
	addOptional(e, "ttft_ms", ttft)
	e.AddInt64("duration_ms", duration.Milliseconds())
	u := x.usage
	if u == nil {
		u = &usage{}
	}
	addOptional(e, "load_ms", u.load.milliseconds())
	addOptional(e, "prompt_eval_ms", u.promptEval.milliseconds())
	addOptional(e, "eval_ms", u.eval.milliseconds())
}

// addOptional writes null for what is not said.
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
	default:
		_ = e.AddReflected(name, v)
	}
}

// optional is nil for a zero value.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
