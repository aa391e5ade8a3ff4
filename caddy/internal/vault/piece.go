package vault

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"time"

	"github.com/google/uuid"
)

const (
	version = 1

	// PieceBytes is how much text a piece holds at most, so that a request takes as much memory
	// here, however long it is.
	PieceBytes = 16 << 10

	// magic begins what is sealed.
	magic = "NZP1"
	// headBytes is the length of the head of what is sealed: magic, request, tenant, direction,
	// flags and index.
	headBytes = len(magic) + 2*16 + 1 + 1 + 4
)

// direction is which way a text went.
type direction uint8

const (
	prompt direction = iota // from the client
	answer                  // to it
	both                    // the prompt, the answer and the length of the prompt, of a short request in one piece
)

// flags say how a piece ends its text.
type flags uint8

const (
	isLast flags = 1 << iota // no piece follows
	isCut                    // the text goes on beyond the greatest size
	isLost                   // it goes on, and there was no memory to keep more of it
)

// Meta is what is known of a request without opening it.
type Meta struct {
	ID, Tenant, Key string // UUIDs
	At, Expires     time.Time
}

// piece is a part of a text on its way to the spool.
type piece struct {
	of      *identified
	way     direction
	ends    flags
	index   uint32
	content []byte
}

// identified is a Meta with the bytes of its ids, which each piece is bound to.
type identified struct {
	Meta

	id, tenant uuid.UUID
}

// line is a sealed piece in the spool, one line of JSON, but for the box at its end, which is long.
type line struct {
	V         int    `json:"v"`
	ID        string `json:"id"`
	Tenant    string `json:"tenant"`
	Key       string `json:"key"`
	AtMS      int64  `json:"at_ms"`   // when the request came
	Expires   int64  `json:"expires"` // in seconds since 1970
	Direction uint8  `json:"direction"`
	Index     uint32 `json:"index"`
	Flags     uint8  `json:"flags"`
	Vault     string `json:"vault"` // the id of the public key
}

// seal appends the line of a piece to others. The head stands inside as well, where nobody who lacks
// the private key can change it: a piece that is missing, swapped or cut shows when they are opened.
func (p *piece) seal(lines []byte, by *sealer, key publicKey, now time.Time, random io.Reader) ([]byte, error) {
	plain := make([]byte, 0, headBytes+len(p.content))
	plain = append(plain, magic...)
	plain = append(plain, p.of.id[:]...)
	plain = append(plain, p.of.tenant[:]...)
	plain = append(plain, byte(p.way), byte(p.ends))
	plain = binary.BigEndian.AppendUint32(plain, p.index)
	plain = append(plain, p.content...)
	sealed, err := by.seal(plain, key, now, random)
	if err != nil {
		return lines, err
	}
	text, err := json.Marshal(line{
		V: version, ID: p.of.ID, Tenant: p.of.Tenant, Key: p.of.Key, AtMS: p.of.At.UnixMilli(),
		Expires: p.of.Expires.Unix(), Direction: uint8(p.way), Index: p.index, Flags: uint8(p.ends),
		Vault: key.id,
	})
	if err != nil {
		return lines, err
	}
	lines = append(lines, text[:len(text)-1]...)
	lines = append(lines, `,"box":"`...)
	lines = base64.StdEncoding.AppendEncode(lines, sealed)
	return append(lines, "\"}\n"...), nil
}
