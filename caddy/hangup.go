package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quietFor is how long a backend must have sent nothing before a request to it is cancelled
	// for a client that has left.
	quietFor = 25 * time.Millisecond
	// leaveWithin is when it is cancelled at the latest: the GPU works for no one meanwhile.
	leaveWithin = 250 * time.Millisecond
)

// hangup cancels the request to a backend once its client has left, in a quiet moment: Ollama
// writes its words through an unbuffered channel, and if the reader of the channel ends for the
// client while a word is on its way, the writer never returns. It keeps the request's place with
// it (OLLAMA_NUM_PARALLEL, by default one): the model answers no one until it is restarted. So
// a client that leaves between the last word and the end of an answer, as many do, closed it for
// all others. What comes until then is read, counted and dropped.
type hangup struct {
	once    sync.Once
	cancel  context.CancelCauseFunc
	heardAt atomic.Int64 // when the backend has sent something last, in ns of the clock
}

// heard notes that the backend sends something.
func (h *hangup) heard() { h.heardAt.Store(process.clock.now().UnixNano()) }

// begin waits for a quiet moment and cancels; the client has left for this cause.
func (h *hangup) begin(cause error) {
	h.once.Do(func() { h.watch(process.clock.now(), cause) })
}

func (h *hangup) watch(since time.Time, cause error) {
	process.clock.afterFunc(quietFor, func() {
		now := process.clock.now()
		isQuiet := now.Sub(time.Unix(0, h.heardAt.Load())) >= quietFor
		if !isQuiet && now.Sub(since) < leaveWithin {
			h.watch(since, cause)
			return
		}
		h.cancel(cause)
	})
}
