package gateway

import (
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const testID = "019ab5c0-1c00-7000-8000-000000000001"

// ended is an exchange that has ended, and the entry that Caddy's access log has for it.
func ended(t *testing.T, s *state) (entry string) {
	t.Helper()
	r := newRecord(&exchange{id: testID, start: s.clock.now()}, accessLog{ctx: t.Context()})
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		LevelKey: "level", TimeKey: "ts", NameKey: "logger", MessageKey: "msg",
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.EpochTimeEncoder,
	})
	line, err := encoder.EncodeEntry(zapcore.Entry{Time: s.clock.now(), LoggerName: "http.log.access.journal", Message: "handled request"},
		[]zap.Field{zap.String("uri", `/","gateway":{"v":1`), zap.Object("gateway", r)})
	must(t, err)
	return line.String()
}

// TestLateRecord: a record that the access log has not carried within a second is written by
// the guard, in the same shape and with the same number; the entry that comes after all is
// dropped.
func TestLateRecord(t *testing.T) {
	s, j := begun(t)
	c, ok := s.clock.(*manualClock)
	equal(t, true, ok, "a clock that stands still")
	entry := ended(t, s)
	for _, wait := range []time.Duration{carryWithin - 1, time.Hour} {
		c.advance(wait)
		s.look()
		equal(t, "boot", summary(t, s, written(t, j)), "at the first look, however late")
	}
	s.look()
	line := strings.Split(strings.TrimSpace(written(t, j)), "\n")[1]
	got, ok := s.numberOf([]byte(line + "\n"))
	equal(t, true, ok, "is a record: "+line)
	equal(t, 1, got, "number")
	content := func(line string) string { return strings.TrimSpace(line[strings.LastIndex(line, `"gateway":`):]) }
	equal(t, content(entry), content(line), "record")
	equal(t, true, strings.Contains(line, `"msg":"handled request"`), line)
	_, err := carrier{j, s}.Write([]byte(entry))
	must(t, err)
	equal(t, "boot "+testID, summary(t, s, written(t, j)), "lines")
	equal(t, 1, s.records.byGuard.Load(), "records by the guard")
	equal(t, 1, len(s.records.suspected()), "suspects")
}

// TestOnlyRecords: of what loggers send to the journal, it takes what metering takes for a
// record of this process, each once.
func TestOnlyRecords(t *testing.T) {
	s, j := begun(t)
	entry := ended(t, s)
	for name, bad := range map[string]string{
		"Caddy's own log": `{"level":"info","ts":1.5,"msg":"serving"}` + "\n",
		"console":         "2026/11/26 10:00:00 INFO handled request " + entry,
		"other time":      strings.Replace(entry, `"ts":`, `"ts":"2026-11-26","was":`, 1),
		"no message":      strings.Replace(entry, `"msg":`, `"message":`, 1),
		"no gateway":      strings.Replace(entry, `"gateway":`, `"other":`, 1),
		"other boot":      strings.Replace(entry, s.boot, testID, 1),
		"cut":             entry[:len(entry)-4] + "\n",
	} {
		n, err := carrier{j, s}.Write([]byte(bad))
		must(t, err)
		equal(t, len(bad), n, name)
		equal(t, "boot", summary(t, s, written(t, j)), name)
	}
	equal(t, 7, s.records.foreign.Load(), "foreign lines")
	for range 2 {
		_, err := carrier{j, s}.Write([]byte(entry))
		must(t, err)
	}
	equal(t, "boot "+testID, summary(t, s, written(t, j)), "lines")
}

// TestEachRecordOnce: whoever writes a record first, loggers and the guard at once, it is in
// the journal once.
func TestEachRecordOnce(t *testing.T) {
	s, j := begun(t)
	var group sync.WaitGroup
	for range 8 {
		for range 50 {
			entry := ended(t, s)
			for range 2 {
				group.Go(func() { _, _ = carrier{j, s}.Write([]byte(entry)) })
			}
		}
		group.Go(func() { s.write(anyRecord) })
	}
	group.Wait()
	s.write(anyRecord)
	equal(t, 401, strings.Count(written(t, j), "\n"), "lines")
	equal(t, 401, j.lines.Load(), "lines counted")
	equal(t, 400, s.records.whole(&s.seq), "numbers without a gap")
}

// TestClaim: of those who ask for a record while it is being written, one writes it.
func TestClaim(t *testing.T) {
	s, _ := begun(t)
	ended(t, s)
	number := s.seq.Load()
	equal(t, true, s.records.claim(number), "the first")
	equal(t, false, s.records.claim(number), "the second")
	s.records.written(number)
	equal(t, false, s.records.claim(number), "after it")
}

// TestWhole: the number up to which all is written waits for the record that is not.
func TestWhole(t *testing.T) {
	s, _ := begun(t)
	must(t, s.open("a"))
	entry := ended(t, s)
	must(t, s.open("b"))
	equal(t, 1, s.records.whole(&s.seq), "whole")
	_, err := carrier{s.journal.Load(), s}.Write([]byte(entry))
	must(t, err)
	equal(t, 3, s.records.whole(&s.seq), "whole")
}
