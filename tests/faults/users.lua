-- Simulates users, one per connection, who pause between requests for an exponential random time.
-- Arguments: the mean pause in milliseconds; the request without its last line; how many seconds to
-- ignore at the start; a file that gets a line per response: its status, and its microseconds.
local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } timespec;
  int clock_gettime(int clock, timespec *now);
]]
local MONOTONIC = 1
local clock = ffi.new("timespec")

local function now() -- in microseconds
  ffi.C.clock_gettime(MONOTONIC, clock)
  return tonumber(clock.seconds) * 1000000 + math.floor(tonumber(clock.nanoseconds) / 1000)
end

function init(arguments)
  mean, head = tonumber(arguments[1]), arguments[2]
  counted = now() + tonumber(arguments[3]) * 1000000
  responses = io.open(arguments[4], "w")
end

function delay()
  return math.floor(-math.log(1 - math.random()) * mean)
end

-- The response repeats the request id, which here is the time when the request was sent.
function request()
  return head .. "X-Request-ID: " .. now() .. "\r\n\r\n"
end

function response(status, headers)
  local sent = tonumber(headers["x-request-id"])
  if sent > counted then
    responses:write(status, " ", now() - sent, "\n")
  end
end
