package gateway

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// carryWithin is how long Caddy's access log may take with a record. What it has not carried
	// to the journal by then the guard writes itself: the settings of a log are the operator's,
	// and none of them may make a request free. It is a second after the end of a request at the
	// latest that a look finds its record for the second time.
	carryWithin = time.Second - lookEvery

	// maxSuspects bounds the suspects named for a configuration.
	maxSuspects = 16
)

// uncarried holds the records that have a number and are not in the journal yet.
type uncarried struct {
	mu      sync.Mutex
	waiting map[uint64]*record // by seq

	foreign atomic.Uint64 // lines that came to the journal and are no records
	byGuard atomic.Uint64 // records that the guard has written

	suspectsMu sync.Mutex
	suspects   []string // what likely keeps records from the journal, since the last reload
}

// enter gives a record the next number, and waits for it to be carried.
func (u *uncarried) enter(r *record, seq *atomic.Uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r.seq, r.foreign = seq.Add(1), u.foreign.Load()
	if u.waiting == nil {
		u.waiting = map[uint64]*record{}
	}
	u.waiting[r.seq] = r
}

// claim reports whether the record of a number has yet to be written, and that the caller
// does so. Only one of those who ask may.
func (u *uncarried) claim(seq uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.waiting[seq]
	if r == nil || r.isClaimed {
		return false
	}
	r.isClaimed = true
	return true
}

// written ends what claim began.
func (u *uncarried) written(seq uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.waiting, seq)
}

// claimAll claims the records that are due, oldest first.
func (u *uncarried) claimAll(isDue func(*record) bool) []*record {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []*record
	for _, r := range u.waiting {
		if !r.isClaimed && isDue(r) {
			r.isClaimed = true
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *record) int { return int(a.seq) - int(b.seq) }) //nolint:gosec // below 2^40
	return list
}

// whole returns the number up to which every line has been written.
func (u *uncarried) whole(seq *atomic.Uint64) uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	number := seq.Load()
	for waiting := range u.waiting {
		number = min(number, waiting-1)
	}
	return number
}

// suspect notes what likely keeps records from the journal; true if it is new.
func (u *uncarried) suspect(what string) bool {
	u.suspectsMu.Lock()
	defer u.suspectsMu.Unlock()
	if len(u.suspects) == maxSuspects || slices.Contains(u.suspects, what) {
		return false
	}
	u.suspects = append(u.suspects, what)
	return true
}

// suspected returns what suspect has noted; never nil.
func (u *uncarried) suspected() []string {
	u.suspectsMu.Lock()
	defer u.suspectsMu.Unlock()
	return append([]string{}, u.suspects...)
}

// forgive forgets the suspects: another configuration is loaded.
func (u *uncarried) forgive() {
	u.suspectsMu.Lock()
	defer u.suspectsMu.Unlock()
	u.suspects = nil
}

// carrier is the journal as Caddy's loggers see it.
type carrier struct {
	*journal

	state *state
}

// Write writes the entry of a record that is not in the journal yet, and drops everything
// else: what metering can't read would be a dead letter, and what it reads twice is a
// request too many among the refusals. A record that is dropped here, since its entry has
// another format, is one that the guard writes.
func (c carrier) Write(line []byte) (int, error) {
	seq, isRecord := c.state.numberOf(line)
	if !isRecord {
		c.state.records.foreign.Add(1)
		return len(line), nil
	}
	if !c.state.records.claim(seq) {
		return len(line), nil
	}
	defer c.state.records.written(seq)
	return c.journal.Write(line)
}

// Close leaves the journal open: what runs outlives the configuration it began with.
func (carrier) Close() error { return nil }

// numberOf returns the number of the record of this process that an access-log entry
// carries; false for an entry that metering would not take for a record. A client can't
// make up one: inside a JSON string the quotes would be escaped.
func (s *state) numberOf(line []byte) (seq uint64, ok bool) {
	const idBytes = 36
	_, head, ok := bytes.Cut(line, []byte(`,"ts":`))
	if !ok || !bytes.HasPrefix(line, []byte(`{"level":"`)) || head[0] < '0' || head[0] > '9' {
		return 0, false
	}
	_, content, ok := bytes.Cut(head, []byte(`"gateway":{"v":1,"id":"`))
	if !ok || len(content) < idBytes || !bytes.Contains(head, []byte(`,"msg":"`)) {
		return 0, false
	}
	from := `","node":"` + s.node + `","boot":"` + s.boot + `","seq":`
	number, ok := bytes.CutPrefix(content[idBytes:], []byte(from))
	if !ok || !bytes.HasSuffix(line, []byte("}\n")) {
		return 0, false
	}
	number, _, _ = bytes.Cut(number, []byte{','})
	seq, err := strconv.ParseUint(string(number), 10, 64)
	return seq, err == nil
}

// guardEncoder writes a record as Caddy's JSON encoder does.
var guardEncoder = zapcore.NewJSONEncoder(zapcore.EncoderConfig{
	LevelKey: "level", TimeKey: "ts", NameKey: "logger", MessageKey: "msg",
	EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.EpochTimeEncoder,
})

// anyRecord is every record that waits.
func anyRecord(*record) bool { return true }

// isLate reports whether the access log has had its time, at two looks in a row: after the
// whole process stood still, the log still has its turn. The caller holds the lock of
// uncarried.
func (x *record) isLate(now time.Time) bool {
	wasOverdue := x.isOverdue
	x.isOverdue = !x.ended().Add(carryWithin).After(now)
	return wasOverdue
}

// write writes the records that are due and that the access log has not carried.
func (s *state) write(isDue func(*record) bool) []*record {
	due := s.records.claimAll(isDue)
	for _, r := range due {
		entry := zapcore.Entry{Time: r.ended(), LoggerName: ownLogger, Message: "handled request"}
		content := zap.Object("gateway", zapcore.ObjectMarshalerFunc(r.encode))
		line, err := guardEncoder.Clone().EncodeEntry(entry, []zap.Field{content})
		if err == nil { // it always is: our fields are strings and numbers
			_, _ = s.journal.Load().Write(line.Bytes()) // a journal that takes nothing keeps the line
			line.Free()
		}
		s.records.written(r.seq)
	}
	return due
}

// alarm says what has kept records from the journal, once for each cause.
func (s *state) alarm(late []*record) {
	s.records.byGuard.Add(uint64(len(late)))
	for _, r := range late {
		suspect := r.suspect(s.records.foreign.Load())
		if s.records.suspect(suspect) {
			caddy.Log().Named(ownLogger).Error(
				"the access log does not carry records to the journal, so the guard writes them itself",
				zap.String("suspect", suspect), zap.String("request", r.id))
		}
	}
}
