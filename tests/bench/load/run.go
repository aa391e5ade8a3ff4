package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const stampDigits = 16

// filler is what a long prompt says, over and over.
const filler = "A gateway that knows what a prompt may cost has to read all of it, word by word; "

// plan is what to ask for.
type plan struct {
	url, path, key, model string
	clients, each, tokens int
	prompt                int
	length, ramp, gap     time.Duration
	every                 time.Duration
	stream                bool
}

// result is what came of it. A time is null where there was nothing to measure.
type result struct {
	Whole   int      `json:"whole"`   // answers that came as they were sent
	Failed  int      `json:"failed"`  // all others
	Failure string   `json:"failure"` // of the first that failed
	Tokens  int      `json:"tokens"`
	Seconds float64  `json:"seconds"`
	P50     *float64 `json:"p50_ms"`   // from a request to the end of its answer
	First   *float64 `json:"ttft_ms"`  // to its first token, median
	Delay   *float64 `json:"delay_ms"` // from the mock's write of a token to our reading of it, p99
}

// client is one that asks again as soon as it has its answer.
type client struct {
	plan
	http   *http.Client
	body   []byte
	whole  []time.Duration
	first  []time.Duration
	delays []time.Duration
	tokens int
	failed []error
}

func run(p plan) result {
	transport := &http.Transport{MaxIdleConnsPerHost: p.clients, DisableCompression: true}
	clients := make([]*client, p.clients)
	var all sync.WaitGroup
	start := time.Now()
	for i := range clients {
		c := &client{plan: p, http: &http.Client{Transport: transport}, body: p.request()}
		clients[i] = c
		wait := p.ramp * time.Duration(i) / time.Duration(p.clients)
		all.Go(func() {
			time.Sleep(wait)
			c.askUntil(start.Add(p.length))
		})
	}
	all.Wait()
	return gathered(clients, time.Since(start))
}

// request is the same for every request, so that it costs nothing to make.
func (p plan) request() []byte {
	limit := fmt.Sprintf(`"options":{"num_predict":%d}`, p.tokens)
	if strings.HasPrefix(p.path, "/v1/") {
		limit = fmt.Sprintf(`"max_tokens":%d`, p.tokens)
	}
	before := ""
	if p.prompt > 0 {
		text := strings.Repeat(filler, p.prompt/len(filler)+1)[:p.prompt]
		before = fmt.Sprintf(`{"role":"user","content":%q},`, text)
	}
	return fmt.Appendf(nil, `{"model":%q,"stream":%t,"messages":[%s{"role":"user","content":"tokens=%d every=%s"}],%s}`,
		p.model, p.stream, before, p.tokens, p.every, limit)
}

func (c *client) askUntil(end time.Time) {
	for asked := 0; c.each > 0 && asked < c.each || c.each == 0 && (asked == 0 || time.Now().Before(end)); asked++ {
		if c.gap > 0 {
			time.Sleep(c.gap*2/3 + rand.N(c.gap*2/3)) //nolint:gosec // the pause need not be secret
		}
		if err := c.ask(); err != nil {
			c.failed = append(c.failed, err)
			if len(c.failed) == 10 {
				return // what never answers would fail as fast as it can
			}
		}
	}
}

func (c *client) ask() error {
	request, err := http.NewRequest(http.MethodPost, c.url+c.path, bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+c.key)
	start := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return fmt.Errorf("status %d: %s", response.StatusCode, text)
	}
	return c.read(response.Body, start)
}

// read counts the stamped tokens of an answer, and how long each has been on its way.
func (c *client) read(body io.Reader, start time.Time) error {
	lines := bufio.NewReaderSize(body, 64<<10)
	tokens := 0
	for {
		line, err := lines.ReadSlice('\n')
		now := time.Now()
		found, sent := stamps(line)
		if tokens == 0 && found > 0 {
			c.first = append(c.first, now.Sub(start))
		}
		if c.stream && found > 0 {
			c.delays = append(c.delays, now.Sub(sent))
		}
		tokens += found
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if tokens != c.plan.tokens {
		return fmt.Errorf("%d tokens of the mock instead of %d", tokens, c.plan.tokens)
	}
	c.whole = append(c.whole, time.Since(start))
	c.tokens += tokens
	return nil
}

// stamps counts the stamps in a line, and returns the time of the first.
func stamps(line []byte) (count int, sent time.Time) {
	at := bytes.IndexByte(line, stampMark)
	if at < 0 || at+1+stampDigits > len(line) {
		return 0, sent
	}
	micros, err := strconv.ParseInt(string(line[at+1:at+1+stampDigits]), 10, 64)
	if err != nil {
		return 0, sent
	}
	return bytes.Count(line, []byte{stampMark}), time.UnixMicro(micros)
}

func gathered(clients []*client, took time.Duration) result {
	out := result{Seconds: took.Seconds()}
	var whole, first, delays []time.Duration
	for _, c := range clients {
		whole, first, delays = append(whole, c.whole...), append(first, c.first...), append(delays, c.delays...)
		out.Tokens += c.tokens
		out.Failed += len(c.failed)
		if out.Failure == "" && len(c.failed) > 0 {
			out.Failure = c.failed[0].Error()
		}
	}
	out.Whole = len(whole)
	out.P50, out.First, out.Delay = quantile(whole, 0.5), quantile(first, 0.5), quantile(delays, 0.99)
	return out
}

// quantile returns the value below which such a share lies, in milliseconds; nil without any.
func quantile(of []time.Duration, share float64) *float64 {
	if len(of) == 0 {
		return nil
	}
	slices.Sort(of)
	ms := of[int(share*float64(len(of)-1))].Seconds() * 1000
	return &ms
}
