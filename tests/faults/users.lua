-- Users who ask again after a pause of random length (exponential), one over each connection.
-- Arguments: the mean of the pause in milliseconds; the request without its last line; from which
-- second on it counts; a file that gets a line for each answer: its status, and its microseconds.
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
  answers = io.open(arguments[4], "w")
end

function delay()
  return math.floor(-math.log(1 - math.random()) * mean)
end

-- An answer has the id of its request, which here is the time when it was sent.
function request()
  return head .. "X-Request-ID: " .. now() .. "\r\n\r\n"
end

function response(status, headers)
  local sent = tonumber(headers["x-request-id"])
  if sent > counted then
    answers:write(status, " ", now() - sent, "\n")
  end
end
