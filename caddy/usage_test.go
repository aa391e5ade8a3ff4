package gateway

import (
	"fmt"
	"testing"
)

// TestLeavesAllocateNothing: reading a frame costs no allocation.
func TestLeavesAllocateNothing(t *testing.T) {
	for kind, frame := range benchFrames {
		u := newUsage(kind, true)
		read := func() { u.readLine([]byte(frame)) }
		read()
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("%v allocations in %s", n, frame)
		}
	}
}

var benchFrames = map[api]string{
	apiChat: `{"model":"toy","created_at":"2026-11-23T06:25:23.065158915Z",` +
		`"message":{"role":"assistant","content":"Rayleigh"},"done":false}` + "\n",
	apiV1Chat: `{"id":"chatcmpl-309","object":"chat.completion.chunk","created":1795415123,` +
		`"model":"toy","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":` +
		`{"role":"assistant","content":"Rayleigh"},"finish_reason":null}]}`,
}

func BenchmarkFrame(b *testing.B) {
	for kind, frame := range benchFrames {
		b.Run(fmt.Sprint(kind), func(b *testing.B) {
			u, text := newUsage(kind, true), []byte(frame)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				u.readLine(text)
			}
		})
	}
}
