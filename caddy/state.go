package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	// lookEvery is how often the process looks after its journal, syncEvery after how many looks
	// it forces what was written to the disk.
	lookEvery = 200 * time.Millisecond
	syncEvery = 5

	exitLookEvery = 5 * time.Millisecond // whether the last lines have been written
)

// noteJournal notes that a configuration has a journal.
func (s *state) noteJournal(ctx caddy.Context) { s.config(ctx).hasJournal.Store(true) }

// needsJournal refuses a configuration in which nothing leads to a journal.
func (s *state) needsJournal(ctx caddy.Context, directive string) error {
	if !s.config(ctx).hasJournal.Load() {
		return fmt.Errorf("%s needs a journal: give a `log` the line `output gateway_journal PATH`", directive)
	}
	return nil
}

// use makes j the journal of the process, which has one until it ends: a reload that names
// another path fails.
func (s *state) use(j *journal) (*journal, error) {
	if !s.journal.CompareAndSwap(nil, j) && s.journal.Load().path != j.path {
		return nil, fmt.Errorf("the journal is %s until Caddy restarts", s.journal.Load().path)
	}
	return s.journal.Load(), nil
}

// begin takes the journal and writes the boot line; requests wait for it.
func (s *state) begin() error {
	s.once.Do(func() {
		s.fault = s.takeJournal(s.clock.now())
		if s.fault == nil {
			go s.lookAfterJournal()
			go s.reportProgress()
			tuneCollections()
		}
	})
	return s.fault
}

func (s *state) takeJournal(now time.Time) error {
	j := s.journal.Load()
	if j == nil {
		return errors.New("no site logs to `output gateway_journal PATH`")
	}
	last, err := j.own(s.random)
	if err != nil {
		return err
	}
	boot, err := newID(now, s.random)
	if err != nil {
		return err
	}
	s.node, s.boot, j.boot = j.node, boot, boot
	// A journal that takes nothing yet keeps the line, and the doors closed; ending instead would
	// end the whole gateway, since the next process fares no better.
	_ = j.line(now, "boot", bootLine{V: version, Node: s.node, Boot: s.boot, Previous: last})
	return nil
}

// lookAfterJournal looks for as long as the process runs.
func (s *state) lookAfterJournal() {
	for looks := 1; ; looks++ {
		<-s.clock.after(lookEvery)
		s.look()
		if looks%syncEvery == 0 {
			s.journal.Load().sync()
		}
	}
}

// look writes the records that the access log has not carried in time, and makes sure that
// the journal is where it should be.
func (s *state) look() {
	now := s.clock.now()
	s.alarm(s.write(func(r *record) bool { return r.isLate(now) }))
	s.journal.Load().look(
		func() uint64 { return s.records.whole(&s.seq) },
		func(whole uint64) []byte {
			line, _ := ownLine(now, "boot", bootLine{
				V: version, Node: s.node, Boot: s.boot, Seq: s.seq.Add(1), Previous: &lastLine{s.boot, whole},
			})
			return line
		},
	)
}

// isOpen reports whether the journal takes lines; without it nothing may run, since what
// runs unrecorded is never billed.
func (s *state) isOpen() bool {
	return s.begin() == nil && !s.journal.Load().isClosed.Load()
}

// shutdown cancels what still runs, and waits until all of it is in the journal, but no
// longer than patience. What the access log has not carried by then it does not carry any
// more.
func (s *state) shutdown(patience time.Duration) {
	j := s.journal.Load()
	if j == nil || s.boot == "" {
		return
	}
	s.streams.cancel(outcomeShutdown, func(*exchange) bool { return true })
	deadline := s.clock.after(patience)
	for isWaiting := true; isWaiting && (s.streams.count() > 0 || j.lines.Load() <= s.seq.Load()); {
		select {
		case <-deadline:
			isWaiting = false
		case <-s.clock.after(exitLookEvery):
		}
		if s.streams.count() == 0 {
			s.write(anyRecord)
		}
	}
	s.write(anyRecord)
	s.look()
	j.sync()
	s.vault.Flush(patience)
}

// journalState is what the control socket shows of the journal.
type journalState struct {
	Path           string   `json:"path"`
	IsOpen         bool     `json:"is_open"`
	Reopened       uint64   `json:"reopened"`         // times that the file was not at its path, or was cut
	RecordsByGuard uint64   `json:"records_by_guard"` // that the access log has not carried
	ForeignLines   uint64   `json:"foreign_lines"`    // that were no records
	Suspects       []string `json:"suspects"`         // what likely keeps records from the journal
}

// journalNow returns the state of the journal.
func (s *state) journalNow() journalState {
	now := journalState{
		IsOpen: s.isOpen(), RecordsByGuard: s.records.byGuard.Load(),
		ForeignLines: s.records.foreign.Load(), Suspects: s.records.suspected(),
	}
	if j := s.journal.Load(); j != nil {
		now.Path, now.Reopened = j.path, j.reopened.Load()
	}
	return now
}
