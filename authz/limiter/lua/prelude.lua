-- In front of every script. ARGV[1] is the time in µs: 0, as always outside of tests, is Redis's own.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Lua's own conversion keeps 14 digits: whole numbers need 16, shares of a µs all there are.
local function int(x) return string.format('%.0f', x) end
local function exact(x) return string.format('%.17g', x) end
