package gateway

// An outcome is what became of a request, as its record states it. Metering prices by it.
// testdata/contract/reasons.json lists all of them; the Python side reads the same file.
type outcome string

const (
	outcomeCompleted          outcome = "completed"
	outcomeDenied             outcome = "denied"       // by authz
	outcomeRefused            outcome = "refused"      // by the guard or the tap
	outcomeAuthzFailed        outcome = "authz_failed" // authz did not decide
	outcomeClientDisconnected outcome = "client_gone"
	outcomeUpstreamLost       outcome = "upstream_gone"  // the answer stops before its end
	outcomeUpstreamError      outcome = "upstream_error" // no answer, or one that reports an error
	// The causes for which the gateway itself ends a request.
	outcomeCap      outcome = "cut_cap"      // more output than the Grant allows
	outcomeDeadline outcome = "cut_deadline" // it ran longer than the Grant allows
	outcomeKilled   outcome = "killed"       // by the operator
	outcomeShutdown outcome = "shutdown"     // Caddy ends
	outcomeOverflow outcome = "overflow"     // a frame larger than maxFrameBytes
)

// A reason is why a request was not served, as its record and the metrics state it: one of
// those below, one of the Denial's, or the cause for which the gateway ended the request.
// reasons.json lists all of them.
type reason string

const (
	reasonJournalUnwritable  reason = "journal_unwritable" // nothing may run unrecorded
	reasonPathSlashes        reason = "path_slashes"       // too many, and the client knows the path now
	reasonPoolFull           reason = "pool_full"          // of memory for bodies
	reasonBodySlow           reason = "body_slow"
	reasonBodyBroken         reason = "body_broken"
	reasonGrantMissing       reason = "grant_missing"
	reasonGrantInvalid       reason = "grant_invalid" // of another request or version, or useless
	reasonGrantStale         reason = "grant_stale"   // older than maxGrantAge
	reasonAuthzUnreachable   reason = "authz_unreachable"
	reasonAuthzTimeout       reason = "authz_timeout"
	reasonAuthzInvalid       reason = "authz_invalid"       // neither a Grant nor a Denial
	reasonDenialInvalid      reason = "denial_invalid"      // of another request, or not a refusal
	reasonDenied             reason = "denied"              // a Denial that names no reason
	reasonBackendUnknown     reason = "backend_unknown"     // no snippet in the Caddyfile
	reasonBackendUnreachable reason = "backend_unreachable" // no connection, or it broke
	reasonBackendUnavailable reason = "backend_unavailable" // none that is healthy
	reasonBackendBusy        reason = "backend_busy"        // no slot came free in time
	reasonBackendTimeout     reason = "backend_timeout"
	reasonBackendInvalid     reason = "backend_invalid" // an upgrade, or an empty answer
	reasonBackendEncoded     reason = "backend_encoded" // compressed, though we did not ask for it
	reasonNotConfigured      reason = "not_configured"  // the Caddyfile has no handler
	reasonKilled             reason = reason(outcomeKilled)
	reasonShutdown           reason = reason(outcomeShutdown)
	reasonDeadline           reason = reason(outcomeDeadline)
)

// Denials after which authz has not acted on the list of ended requests in the Ask.
const (
	denialLimiterUnavailable reason = "limiter_unavailable"
	denialOverloaded         reason = "overloaded"
)

// A problem is what the guard finds wrong with a request. It refuses nothing for it: the
// Ask carries the problem, and authz words the refusal (reasons.json names its reason).
type problem string

const (
	noProblem         problem = ""
	problemTarget     problem = "target"          // a path with more than one spelling
	problemCredential problem = "credential"      // more than one key
	problemNotJSON    problem = "not_json"        // not one object in UTF-8
	problemDuplicate  problem = "duplicate_field" // a name twice, in any case
	problemField      problem = "field"           // a wrong type, or an escaped name
	problemKind       problem = "kind"            // of an item, part, tool, role or format: see kinds
	problemTooLarge   problem = "too_large"       // above Guard.MaxBodyBytes
	problemTooDeep    problem = "too_deep"        // above jsonstream.MaxDepth
	problemEncoding   problem = "encoding"        // a compressed body
)

// messages are the sentences that clients read, by reason.
var messages = map[reason]string{
	reasonJournalUnwritable:  "the gateway cannot keep its journal and takes no requests; please try again",
	reasonPathSlashes:        "the path has too many slashes; please ask where the Location header says",
	reasonPoolFull:           "the bodies of this key or address, or of all, hold too much memory; please send fewer",
	reasonBodySlow:           "the request body did not arrive in time; please send it again",
	reasonBodyBroken:         "the request body could not be read; please send it again",
	reasonBackendUnreachable: "the model backend cannot be reached; please try again",
	reasonBackendUnavailable: "no model backend is available; please try again",
	reasonBackendBusy:        "all slots of the model's backends are in use; please try again",
	reasonBackendTimeout:     "the model backend did not answer in time; please try again",
	reasonBackendInvalid:     "the model backend gave an answer that is not valid; please try again",
	reasonBackendEncoded:     "the model backend gave an answer that cannot be read; please try again",
	reasonBackendUnknown:     "the gateway has no snippet for the chosen backend; please ask its operator",
	reasonKilled:             "the request was ended by the operator of the gateway",
	reasonShutdown:           "the gateway is shutting down; please try again",
	reasonDeadline:           "the request took longer than it may",
}

// isFinal reports whether a retry of the same request would end in the same way, or cost what
// it has cost before. The answer then has X-Should-Retry, and no Retry-After: a coding agent
// repeats a 401 or 504 for minutes otherwise.
func (why reason) isFinal() bool {
	switch why {
	case reasonDeadline, reasonKilled, reasonNotConfigured:
		return true
	default:
		return false
	}
}

// defaultMessage is the sentence for every other reason: clients need not know what the
// gateway is made of.
const defaultMessage = "the gateway cannot check this request right now; please try again"

// messageOf returns the sentence that a client reads for a reason.
func messageOf(why reason) string {
	if message, ok := messages[why]; ok {
		return message
	}
	return defaultMessage
}
