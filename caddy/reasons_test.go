package gateway

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// contractReasons is testdata/contract/reasons.json.
type contractReasons struct {
	Denials  []string           `json:"denials"`  // of authz
	Final    []string           `json:"final"`    // which a retry can't cure
	Guard    []string           `json:"guard"`    // of the guard and the tap
	Outcomes []string           `json:"outcomes"` // of a record
	Problems map[problem]string `json:"problems"` // of an Ask, with the reason of the Denial
}

// constants are the values of the constants in reasons.go whose names begin with prefix.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	must(t, err)
	literals := map[string]ast.Expr{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			literals[spec.Names[0].Name] = spec.Values[0]
		}
		return true
	})
	var list []string
	for name, value := range literals {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if call, ok := value.(*ast.CallExpr); ok { // reason(outcomeKilled)
			if argument, ok := call.Args[0].(*ast.Ident); ok {
				value = literals[argument.Name]
			}
		}
		literal, ok := value.(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is no string", name)
		}
		text, err := strconv.Unquote(literal.Value)
		must(t, err)
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// TestGoldenReasons: the contract lists every outcome, reason and problem that we can write,
// and no others, and every problem has a Denial.
func TestGoldenReasons(t *testing.T) {
	var want contractReasons
	must(t, json.Unmarshal([]byte(golden(t, "reasons")), &want))
	equalJSON(t, want.Outcomes, constants(t, "outcome"), "outcomes")
	equalJSON(t, want.Guard, constants(t, "reason"), "reasons")
	for _, name := range constants(t, "denial") {
		equal(t, true, slices.Contains(want.Denials, name), name)
	}
	problems := constants(t, "problem")
	equal(t, len(want.Problems), len(problems), "number of problems")
	for _, name := range problems {
		denial := want.Problems[problem(name)]
		equal(t, true, slices.Contains(want.Denials, denial), name+": "+denial)
	}
	for _, name := range want.Guard {
		equal(t, slices.Contains(want.Final, name), reason(name).isFinal(), name+" is final")
	}
	for why := range messages {
		equal(t, true, slices.Contains(want.Guard, string(why)), string(why))
	}
	equal(t, true, slices.IsSorted(want.Denials), "denials are sorted")
}
