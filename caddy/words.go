package gateway

import "neuronetz-gateway/caddy/internal/jsonstream"

// The member names that an answer's usage or content stands under, in all dialects. They are
// numbers, so that a path is compared without strings; all but a few scalars are skipped by
// their first name.
const (
	wArguments = jsonstream.FirstWord + iota
	wCacheCreation
	wCacheRead
	wCachedTokens
	wChoices
	wCompletionTokens
	wContent
	wContentBlock
	wDelta
	wDone
	wError
	wEvalCount
	wEvalDuration
	wFinishReason
	wFunction
	wID
	wIndex
	wInput
	wInputDetails
	wInputTokens
	wItem
	wLoadDuration
	wMessage
	wModel
	wName
	wOutput
	wOutputTokens
	wPartialJSON
	wPromptCached
	wPromptDetails
	wPromptEvalCount
	wPromptEvalDuration
	wPromptTokens
	wResponse
	wRole
	wSequence
	wStatus
	wStopReason
	wText
	wThinking
	wToolCalls
	wType
	wUsage
)

// words is the vocabulary of the shapes: all names that one of them looks for.
var words = map[string]jsonstream.Word{
	"arguments": wArguments, "cache_creation_input_tokens": wCacheCreation,
	"cache_read_input_tokens": wCacheRead,
	"cached_tokens":           wCachedTokens, "choices": wChoices, "completion_tokens": wCompletionTokens,
	"content": wContent, "content_block": wContentBlock, "delta": wDelta, "done": wDone, "error": wError,
	"eval_count": wEvalCount, "eval_duration": wEvalDuration, "finish_reason": wFinishReason,
	"function": wFunction, "id": wID, "index": wIndex, "input": wInput,
	"input_tokens_details": wInputDetails, "input_tokens": wInputTokens, "item": wItem,
	"load_duration": wLoadDuration, "message": wMessage, "model": wModel, "name": wName, "output": wOutput,
	"output_tokens": wOutputTokens, "partial_json": wPartialJSON,
	"prompt_eval_cached_count": wPromptCached, "prompt_tokens_details": wPromptDetails,
	"prompt_eval_count": wPromptEvalCount, "prompt_eval_duration": wPromptEvalDuration,
	"prompt_tokens": wPromptTokens, "response": wResponse, "role": wRole,
	"sequence_number": wSequence, "status": wStatus, "stop_reason": wStopReason, "text": wText,
	"thinking": wThinking, "tool_calls": wToolCalls, "type": wType, "usage": wUsage,
}
