package gateway

import (
	"maps"
	"slices"
	"strconv"
)

// askBytes is longer than almost every Ask, and than almost every line.
const askBytes = 2048

// plainWriter is JSON that is being written, in ASCII: each value behind the text that leads to it.
type plainWriter []byte

// ask writes an Ask.
func (w plainWriter) ask(a *ask) plainWriter {
	w = w.number(`{"v":`, int64(a.V)).text(`,"id":`, a.ID).text(`,"node":`, a.Node).text(`,"boot":`, a.Boot)
	w = w.textOr(`,"trace_id":`, a.TraceID).text(`,"ip":`, a.IP).text(`,"method":`, a.Method).text(`,"path":`, a.Path)
	w = w.textOr(`,"lookup":`, a.Lookup).flag(`,"in_path":`, a.InPath).numberOr(`,"length":`, a.Length)
	w = w.textOr(`,"model":`, a.Model).flagOr(`,"stream":`, a.Stream).numberOr(`,"max_output":`, a.MaxOutput)
	w = w.number(`,"prompt_bytes":`, int64(a.PromptBytes)).bounds(`,"bounds":`, a.Bounds)
	w = w.number(`,"images":`, int64(a.Images)).number(`,"messages":`, int64(a.Messages))
	w = w.number(`,"tools":`, int64(a.Tools)).asked(`,"asked":`, a.Asked)
	w = w.other(`,"signed":`, a.Signed, a.Signed == nil).textOr(`,"problem":`, (*string)(a.Problem))
	w = w.textOr(`,"field":`, a.Field).done(`,"done":`, a.Done)
	return append(w, '}')
}

// openLine writes an open line.
func (w plainWriter) openLine(l *openLine) plainWriter {
	w = w.number(`{"v":`, int64(l.V)).text(`,"id":`, l.ID).text(`,"node":`, l.Node).text(`,"boot":`, l.Boot)
	w = w.number(`,"seq":`, int64(l.Seq)).textOr(`,"trace_id":`, l.TraceID) //nolint:gosec // below 2^40
	w = w.text(`,"tenant":`, l.Tenant).text(`,"key":`, l.Key).text(`,"ip":`, l.IP).textOr(`,"end_user":`, l.EndUser)
	w = w.text(`,"path":`, l.Path).textOr(`,"model":`, l.Model).textOr(`,"model_asked":`, l.ModelAsked)
	w = w.text(`,"backend":`, l.Backend).flagOr(`,"stream":`, l.Stream)
	w = w.tokens(`,"reserved":`, l.Reserved).tokens(`,"ceiling":`, l.Ceiling).windows(`,"windows":`, l.Windows)
	w = w.flag(`,"queued":`, l.Queued).number(`,"prompt_bytes":`, l.PromptBytes)
	w = w.number(`,"images":`, l.Images).number(`,"deadline":`, l.Deadline)
	return append(w, '}')
}

func (w plainWriter) text(before, text string) plainWriter {
	w = append(w, before...)
	for i := range len(text) {
		if !isPlain[text[i]] {
			return append(w, marshalASCII(text)...)
		}
	}
	return append(append(append(w, '"'), text...), '"')
}

func (w plainWriter) number(before string, n int64) plainWriter {
	return strconv.AppendInt(append(w, before...), n, 10)
}

func (w plainWriter) flag(before string, isSet bool) plainWriter {
	return strconv.AppendBool(append(w, before...), isSet)
}

func (w plainWriter) null(before string) plainWriter { return append(append(w, before...), "null"...) }

func (w plainWriter) textOr(before string, text *string) plainWriter {
	if text == nil {
		return w.null(before)
	}
	return w.text(before, *text)
}

func (w plainWriter) numberOr(before string, n *int64) plainWriter {
	if n == nil {
		return w.null(before)
	}
	return w.number(before, *n)
}

func (w plainWriter) flagOr(before string, isSet *bool) plainWriter {
	if isSet == nil {
		return w.null(before)
	}
	return w.flag(before, *isSet)
}

// other writes what few requests have.
func (w plainWriter) other(before string, value any, isNil bool) plainWriter {
	if isNil {
		return w.null(before)
	}
	return append(append(w, before...), marshalASCII(value)...)
}

func (w plainWriter) tokens(before string, t *tokens) plainWriter {
	if t == nil {
		return w.null(before)
	}
	return append(append(w, before...).number(`{"input":`, t.Input).number(`,"output":`, t.Output), '}')
}

func (w plainWriter) windows(before string, of *windows) plainWriter {
	if of == nil {
		return w.null(before)
	}
	return append(append(w, before...).text(`{"day":`, of.Day).text(`,"month":`, of.Month), '}')
}

func (w plainWriter) asked(before string, a *asked) plainWriter {
	if a == nil {
		return w.null(before)
	}
	w = append(w, before...).numberOr(`{"num_ctx":`, a.NumCtx).numberOr(`,"keep_alive_s":`, a.KeepAliveS)
	w = w.numberOr(`,"num_gpu":`, a.NumGPU).numberOr(`,"stop":`, a.Stop).numberOr(`,"inputs":`, a.Inputs)
	return append(w.numberOr(`,"schema_bytes":`, a.SchemaBytes).numberOr(`,"logprobs":`, a.Logprobs), '}')
}

func (w plainWriter) bounds(before string, bounds map[string]int64) plainWriter {
	if bounds == nil {
		return w.null(before)
	}
	w = append(append(w, before...), '{')
	comma := ""
	for _, digest := range slices.Sorted(maps.Keys(bounds)) {
		w = w.text(comma, digest).number(":", bounds[digest])
		comma = ","
	}
	return append(w, '}')
}

func (w plainWriter) done(before string, list []doneRequest) plainWriter {
	if list == nil {
		return w.null(before)
	}
	w = append(append(w, before...), '[')
	comma := ""
	for _, d := range list {
		w = append(w, comma...).text(`{"id":`, d.ID).text(`,"tenant":`, d.Tenant).text(`,"key":`, d.Key)
		w = append(w, '}')
		comma = ","
	}
	return append(w, ']')
}
