// Package vault seals the prompts and answers of the keys that ask for it, as they pass. A file holds
// the public key; what is sealed for it can be opened with the private key alone, which no server has.
//
// Nothing here ever waits for a disk: what finds no memory, no key or no room in the spool is dropped
// and counted, and the request goes on.
package vault

import (
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// maxPieces is how many pieces are lent at a time: 64 MiB of text that waits to be sealed.
	maxPieces = 4096

	// gatheredBytes is how much is sealed before it is written, if more waits.
	gatheredBytes = 64 << 10

	lookEvery = time.Second
)

// Settings are where a vault finds its key and keeps what it seals.
type Settings struct {
	Spool      string // a folder that nothing else writes to, "" for no vault
	PublicKeys string // a file, which may come later
	EntryBytes int64  // the most of a prompt, and of an answer
	SpoolBytes int64  // the most of all that metering has not taken yet
}

// Vault is what a process has once.
type Vault struct {
	now    func() time.Time
	after  func(time.Duration) <-chan time.Time
	random io.Reader

	// What entries use.
	key        atomic.Pointer[publicKey] // nil: nothing can be kept
	entryBytes atomic.Int64
	lent       atomic.Int64 // pieces
	lost       atomic.Uint64
	queue      chan *piece
	pieces     sync.Pool

	mu       sync.Mutex // of what follows
	settings Settings
	log      *zap.Logger
	begun    bool

	// What the worker alone uses.
	spool      spool
	sealer     sealer
	lines      []byte // sealed, and not written yet
	unwritten  uint64 // how many
	stamp      string // of the file of the keys
	trouble    string // what was complained of last
	lostBefore uint64 // when the worker looked last
	flush      chan chan struct{}
}

// New returns a vault that keeps nothing yet.
func New(now func() time.Time, after func(time.Duration) <-chan time.Time, random io.Reader) *Vault {
	return &Vault{
		now: now, after: after, random: random,
		queue:  make(chan *piece, maxPieces),
		pieces: sync.Pool{New: func() any { return &piece{content: make([]byte, 0, PieceBytes)} }},
		flush:  make(chan chan struct{}),
	}
}

// Check reports what is wrong with the file of the public keys; that there is none is not.
func (s Settings) Check() error {
	if s.Spool == "" {
		return nil
	}
	_, err := readKeys(s.PublicKeys)
	return err
}

// Watch looks after key and spool from now on, until the process ends; a reload may name others.
func (v *Vault) Watch(settings Settings, log *zap.Logger) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.settings, v.log = settings, log
	v.entryBytes.Store(settings.EntryBytes)
	if v.begun || settings.Spool == "" {
		return
	}
	v.begun = true
	if keys, err := readKeys(settings.PublicKeys); err == nil && len(keys) > 0 {
		v.key.Store(&keys[0]) // the first request may come before the worker has looked
	}
	go v.work()
}

// Lost is how many prompts and answers, or pieces of them, were not kept.
func (v *Vault) Lost() uint64 { return v.lost.Load() }

// Flush hands all that has been sealed over to metering, unless that takes longer than patience.
func (v *Vault) Flush(patience time.Duration) {
	v.mu.Lock()
	begun := v.begun
	v.mu.Unlock()
	if !begun {
		return
	}
	late, done := v.after(patience), make(chan struct{})
	select {
	case v.flush <- done:
	case <-late:
		return
	}
	select {
	case <-done:
	case <-late:
	}
}

// take lends a piece; nil if too many are.
func (v *Vault) take() *piece {
	if v.lent.Add(1) > maxPieces {
		v.lent.Add(-1)
		return nil
	}
	p, _ := v.pieces.Get().(*piece)
	*p = piece{content: p.content[:0]}
	return p
}

// giveBack ends the loan of a piece, and forgets its text.
func (v *Vault) giveBack(p *piece) {
	if p == nil {
		return
	}
	clear(p.content)
	v.pieces.Put(p)
	v.lent.Add(-1)
}

func (v *Vault) work() {
	v.look()
	for tick := v.after(lookEvery); ; {
		select {
		case p := <-v.queue:
			v.keep(p)
		case done := <-v.flush:
			for p := v.next(); p != nil; p = v.next() {
				v.keep(p)
			}
			v.complain(v.spool.handOver())
			close(done)
		case <-tick:
			v.look()
			tick = v.after(lookEvery)
		}
	}
}

// keep seals a piece and those that wait behind it, and writes them into the spool, many at once.
func (v *Vault) keep(p *piece) {
	v.seal(p)
	for len(v.lines) < gatheredBytes {
		next := v.next()
		if next == nil {
			break
		}
		v.seal(next)
	}
	v.write()
}

// next returns the piece that waits; nil if none does.
func (v *Vault) next() *piece {
	select {
	case p := <-v.queue:
		return p
	default:
		return nil
	}
}

// seal adds a piece to what is written next, or drops it.
func (v *Vault) seal(p *piece) {
	defer v.giveBack(p)
	key := v.key.Load()
	if key == nil {
		v.lost.Add(1)
		return
	}
	lines, err := p.seal(v.lines, &v.sealer, *key, v.now(), v.random)
	if err != nil {
		v.lost.Add(1)
		v.complain(err)
		return
	}
	v.lines = lines
	v.unwritten++
}

// write writes what has been sealed into the spool, or drops it.
func (v *Vault) write() {
	if v.unwritten == 0 {
		return
	}
	err := v.spool.write(v.lines, v.now())
	if err != nil {
		v.lost.Add(v.unwritten)
	}
	v.complain(err)
	v.lines, v.unwritten = v.lines[:0], 0
}

// look reads the keys if they have changed, and hands over what has been written.
func (v *Vault) look() {
	v.mu.Lock()
	settings := v.settings
	v.mu.Unlock()
	if lost := v.lost.Load(); lost == v.lostBefore {
		v.trouble = "" // what comes again after a while is said again
	} else {
		v.lostBefore = lost
	}
	v.readKey(settings)
	v.sealer.forget(v.now())
	v.complain(v.spool.handOver())
	v.complain(v.spool.use(settings.Spool, settings.SpoolBytes))
}

// readKey takes the key that seals from its file, if that has changed. Without one nothing is kept.
func (v *Vault) readKey(settings Settings) {
	stamp := settings.Spool + settings.PublicKeys
	if info, err := os.Stat(settings.PublicKeys); err == nil {
		stamp += info.ModTime().String() + strconv.FormatInt(info.Size(), 10)
	}
	if stamp == v.stamp {
		return
	}
	v.stamp = stamp
	keys, err := readKeys(settings.PublicKeys)
	if err != nil || len(keys) == 0 || settings.Spool == "" {
		v.key.Store(nil)
	} else {
		v.key.Store(&keys[0])
	}
	v.complain(err)
}

// complain logs what keeps prompts from being kept, each trouble once.
func (v *Vault) complain(err error) {
	if err == nil || err.Error() == v.trouble {
		return
	}
	v.trouble = err.Error()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log.Error("prompts are not kept", zap.Error(err))
}
