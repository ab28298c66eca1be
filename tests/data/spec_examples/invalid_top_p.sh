# Invalid top_p (must be 0.0-1.0)
curl -X POST http://localhost:3000/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "gpt-4",
    "messages": [{"role": "user", "content": "Hello"}],
    "top_p": 1.5
  }'
# Returns: 400 Bad Request with validation error
