package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// newPool is a pool of so many bytes.
func newPool(bytes int64) *pool {
	p := new(pool)
	p.resize(bytes)
	return p
}

// TestPools: a body takes memory as it arrives, and a full pool refuses.
func TestPools(t *testing.T) {
	p := newPool(40 << 10)
	request := func(n int) *http.Request {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(strings.Repeat("x", n)))
		return r
	}
	one, two := p.share("one", "192.0.2.1"), p.share("two", "192.0.2.2")
	body, err := readBody(request(100), 1<<20, &one)
	must(t, err)
	equal(t, 100, len(body), "read")
	equal(t, 101, p.used, "taken")
	if _, err := readBody(request(30<<10), 1<<20, &two); !errors.Is(err, errPoolFull) {
		t.Errorf("a full pool says %v", err)
	}
	two.release()
	if _, err := readBody(request(30<<10), 10<<10, &two); !errors.Is(err, errTooLarge) {
		t.Errorf("a large body says %v", err)
	}
	chunked := request(30 << 10)
	chunked.ContentLength = -1
	if _, err := readBody(chunked, 10<<10, &two); !errors.Is(err, errTooLarge) {
		t.Errorf("a large chunked body says %v", err)
	}
	one.release()
	two.release()
	equal(t, 0, p.used, "taken at the end")
}

// TestNoOneFillsAPool: whoever takes all that they can get, with one key from everywhere, with every
// key from one source, or with many of both, leaves room for one more.
func TestNoOneFillsAPool(t *testing.T) {
	const size, piece = 1 << 30, 8 << 10
	for name, c := range map[string]struct {
		key, ip func(i int) string
		owners  int64
	}{
		"one key":    {func(int) string { return "a" }, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 1},
		"one source": {strconv.Itoa, func(int) string { return "192.0.2.1" }, 1},
		"one network": {
			strconv.Itoa, func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 1,
		},
		"two keys": {
			func(i int) string { return strconv.Itoa(i % 2) }, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 2,
		},
		"ten of both": {
			func(i int) string { return strconv.Itoa(i % 10) }, func(i int) string { return fmt.Sprintf("192.0.2.%d", i%10) }, 10,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(size)
			shares := make([]share, 0, 100)
			for i := range 100 {
				shares = append(shares, p.share(c.key(i), c.ip(i)))
			}
			for isTaking := true; isTaking; {
				isTaking = false
				for i := range shares {
					isTaking = shares[i].grow(shares[i].n+piece) || isTaking
				}
			}
			least := int64(size)/(c.owners+1) - 2*piece*c.owners
			if free := p.size - p.used; free < least {
				t.Errorf("%d bytes are free, want %d", free, least)
			}
			other := p.share("other", "198.51.100.1")
			equal(t, true, other.grow(least/2-piece), "another one finds room")
			for i := range shares {
				shares[i].release()
			}
			other.release()
			equal(t, 0, p.used+int64(len(p.of)), "nothing is left")
		})
	}
}

// TestPoolCounts: whatever is taken and given back in any order, the pool counts what is held and no
// more, by key and by source as well.
func TestPoolCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	p := newPool(1 << 20)
	shares := make([]share, 50)
	for i := range shares {
		shares[i] = p.share(strconv.Itoa(i%7), fmt.Sprintf("192.0.2.%d", i%5))
	}
	for range 10_000 {
		s := &shares[random.IntN(len(shares))]
		if random.IntN(3) == 0 {
			s.release()
		} else {
			s.grow(random.Int64N(100_000))
		}
		var held int64
		of := map[owner]int64{}
		for _, s := range shares {
			held += s.n
			for _, o := range s.owners {
				of[o] += s.n
			}
		}
		equal(t, held, p.used, "taken")
		for o, n := range of {
			equal(t, n, p.of[o], "of an owner")
		}
		if p.used > p.size {
			t.Fatalf("%d of %d bytes", p.used, p.size)
		}
	}
}

// TestSources: an address is a source, in IPv6 its /64, however it is written.
func TestSources(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
		"2001:DB8:1:2::": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "": "", "@": "",
	} {
		equal(t, want, sourceOf(ip), ip)
	}
}

// TestGreedyKey: a key that holds all the memory it can get with bodies that never end is refused
// itself, with its reason, and stands in no other key's way.
func TestGreedyKey(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.edited(t, "pools 1GiB 128MiB", "pools 256KiB 256KiB")
	s.run(t)
	defer s.stop()
	s.upstream.set(t, hello)
	greedy := func() {
		connection := s.dial(t)
		_, err := fmt.Fprintf(connection,
			"POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: 60000\r\n\r\n%s",
			testKey(), strings.Repeat(" ", 50_000))
		must(t, err)
	}
	// One after the other: many that grow side by side may all be refused.
	eventually(t, "the key has its part", func() bool {
		greedy()
		return s.post(t, "/api/chat", strings.Repeat(" ", 50_000)).status == 503
	})
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport := &http.Transport{DialContext: from.DialContext}
	defer transport.CloseIdleConnections()
	body := `{"model":"toy","stream":false,"prompt":"` + strings.Repeat("x", 30_000) + `"}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/generate", strings.NewReader(body))
	must(t, err)
	other := strings.Replace(testKey()[:43], "nz_3", "nz_4", 1)
	request.Header.Set("X-Api-Key", other+keyCheck(other))
	response, err := transport.RoundTrip(request)
	must(t, err)
	equal(t, 200, readAnswer(t, response).status, "another key, from elsewhere")
}
